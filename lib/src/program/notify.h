/* What systemd is told (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names. */
#ifndef PROGRAM_NOTIFY_H
#define PROGRAM_NOTIFY_H

#include <rpcrew/base.h>

/* Does nothing where nobody listens; waits a second at most for whoever reads slowly. Any thread. */
void program_notify(const char *format, ...) CREW_PRINTF(1, 2);

#endif
