/* What an endpoint of a server's may take: calls and bytes of what is in flight; and the memory that what has
 * passed leaves behind. On the I/O thread, unless it says otherwise. */
#ifndef SERVER_INTAKE_H
#define SERVER_INTAKE_H

#include "io/endpoint.h"
#include "service/job.h"

/* How many messages and bytes may be received now, by what is in flight, and how many more in reserve. */
crew_room crew_intake_room(struct crew_endpoint *endpoint);

/* Takes a message into account, until it is discharged: a call, and what its text may take to be decoded. */
void crew_intake_charge(struct crew_endpoint *endpoint, crew_message *message);
/* It is decoded, and what it takes is known: its calls, and its bytes. Any thread. */
void crew_intake_charge_decoded(struct crew_endpoint *endpoint, crew_message *message,
                                const struct crew_job *job);
void crew_intake_discharge(struct crew_endpoint *endpoint, const crew_message *message);

/* What was taken of a peer is no call: it is settled at once, so that its transport looks at the peer again,
 * which may have ended meanwhile. */
void crew_intake_pass_over(struct crew_endpoint *endpoint, crew_peer *peer);

/* What malloc keeps of large or many messages goes back to the system once it is quiet; and what was in use
 * then, for peers that had not read it or not gone, when there has been something more. */
void crew_intake_passed(struct crew_endpoint *endpoint, size_t bytes);
/* As crew_endpoint_owner's due. */
int crew_intake_due(struct crew_endpoint *endpoint);

#endif
