/* What systemd is told (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names. */
#ifndef PROGRAM_NOTIFY_H
#define PROGRAM_NOTIFY_H

#include <rpcrew/base.h>

/* Whether it was sent, or nobody wants it; else errno says why (EAGAIN: whoever reads it is slow). Does not
 * wait for whoever reads slowly. Any thread. */
bool program_notify(const char *format, ...) CREW_PRINTF(1, 2);

#endif
