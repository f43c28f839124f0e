/* rpc.with: what a caller of ours says of its next request, where its transport carries nothing beside one.
 */
#ifndef SERVER_WITH_H
#define SERVER_WITH_H

#include "io/endpoint.h"

/* Takes such notifications out of what has come, each for its peer's next message, which gets its deadline
 * and headers: of this list or of a later one. */
void crew_with_take(struct crew_endpoint *endpoint, crew_list *messages);

#endif
