/* What an HTTP response means for the call that it answers. */
#ifndef TRANSPORT_HTTP_ANSWER_H
#define TRANSPORT_HTTP_ANSWER_H

#include "transport/http_message.h"

#include <rpcrew/impl/message.h>

/* Makes m, whose body is the response's, the event that in means: a reply, a confirmation, or why it was not
 * taken, in words. */
void http_answer_judge(const struct http_message *in, bool one_way, const crew_limits *limits,
                       crew_message *m);

/* How long the service keeps the connection, less a second for what is under way then; most_ms at most. */
int64_t http_answer_keep_ms(const struct http_message *in, int64_t most_ms);

#endif
