/* What a server says of itself. */
#ifndef SERVER_REPORT_H
#define SERVER_REPORT_H

#include "server/server.h"

/* Member of the endpoints' owner: "healthz" (it lives), "readyz" (it takes calls), "metrics". On an I/O
 * thread, which a busy pool does not hold up. */
unsigned crew_report(struct crew_endpoint *endpoint, const char *name, const char **content_type,
                     crew_buffer *out);

/* Whether the threads of all endpoints that are open have gone round since this was last asked, which it then
 * makes them do once more. One thread asks. */
bool crew_report_alive(crew_server *server);

#endif
