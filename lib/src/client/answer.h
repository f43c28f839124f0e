/* What an answer says: the outcome that it means for its call, and the result that is made of it. */
#ifndef CLIENT_ANSWER_H
#define CLIENT_ANSWER_H

#include "client/client.h"

/* A message with replies. It lives as long as the last result that is made of it. */
struct answer {
    atomic_uint refs;
    crew_message *message;
};

/* In the message's arena, held once, with the message from then on; NULL without memory. */
struct answer *answer_new(crew_message *message);
/* A hold is gone; with the last one the message is. */
void answer_release(struct answer *answer);
/* In the message's arena, with a hold of its own; NULL without memory. On the I/O thread. */
crew_result *answer_result(struct answer *answer, const crew_wire_reply *reply);

bool replies_are_valid(const crew_wire_replies *replies);
/* Whether the worker has refused the call for lack of room, and not run it. */
bool reply_was_shed(const crew_wire_reply *reply);
/* The outcome that a reply means. uncorrelated: nothing but its id says whose it is. */
void reply_judge(const crew_client *client, const struct crew_pending *call, const crew_wire_reply *reply,
                 bool uncorrelated, crew_error *why);

#endif
