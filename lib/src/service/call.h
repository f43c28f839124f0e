/* One call, from decoding to completion. It knows its method and what it shares with the other calls of its
 * message, and neither tables nor threads. */
#ifndef SERVICE_CALL_H
#define SERVICE_CALL_H

#include "service/entry.h"
#include "service/token.h"

#include <rpcrew/impl/protocol.h>
#include <rpcrew/observe.h>

/* What the calls of one message have in common. */
struct crew_call_group {
    const crew_protocol *protocol;
    int64_t deadline_ms;         /* 0: none */
    const crew_value *headers;   /* what came beside the message; NULL: nothing */
    bool answerable;             /* there is somewhere to send an answer to */
    bool batch;                  /* there are several */
    const char *shed;            /* NULL, or the reason why they are not run */
    const atomic_bool *stopping; /* NULL, or: from when this is true, what is not yet run is shed */
    crew_peer *peer;             /* who waits for them; NULL: nobody who could go */
    atomic_bool adopted;         /* somebody else waits for them, since that one went */
    atomic_bool told;            /* some call was told that nobody waits any more, or not run for that */
    struct crew_tokens *tokens;  /* NULL: nobody stops what runs */
    atomic_size_t shed_count;
    bool timed; /* somebody asks when calls began */
    /* The call has been completed, and its reply is not on its way yet. */
    void (*ended)(const crew_call *call);
    /* Takes room for the reply that has been written; false if there is not as much. */
    bool (*fits)(crew_call *call);
    /* The reply is what it will be. */
    void (*completed)(crew_call *call);
    /* Nobody holds the call any more; it may be gone on return. */
    void (*released)(crew_call *call);
};

/* Why a call is not run: its caller has taken it back, or gone. */
#define CREW_REASON_CANCELLED "cancelled"

struct crew_call {
    struct crew_call_group *group;
    const crew_wire_call *wire;
    struct crew_entry *entry; /* NULL until its method is found */
    struct crew_arguments arguments;
    crew_arena arena;   /* args and what the reply is built of; lent by the thread unless deferred */
    crew_buffer *reply; /* the message's, or own_reply in a batch */
    crew_buffer own_reply;
    atomic_bool completed; /* by whoever is first */
    crew_call *before;     /* the group's: completed before this one */
    atomic_uint holds;     /* the running handler's, and a deferred call's completion */
    bool deferred;         /* written before the handle is handed on */
    bool broken;           /* its handler failed, for a reason that is noted */
    struct crew_token token;
    /* its end, which whoever completes it says */
    crew_ending ending;
    int64_t code;
    crew_string message;
    const char *reason;
    int64_t started_ns; /* where the group is timed */
};

/* Whether nobody waits for the calls any more, since their peer has gone; from then on they have been told.
 */
bool crew_call_group_is_left(struct crew_call_group *group);

/* A hold on the call is gone; with the last one the call is. */
void crew_call_release(crew_call *call);

/* Completes a call without running it, with the error that goes with the reason. */
crew_status crew_call_shed(crew_call *call, const char *reason);

/* crew_fail_value without a look at the service's table. */
crew_status crew_call_fail(crew_call *call, int64_t code, crew_string message, const crew_value *data);

/* Completes a call with one of the codes that the protocols define, in its standard words. */
crew_status crew_call_refuse(crew_call *call, crew_ending ending, int code, const crew_value *data);

/* Completes a call whose params do not fit. */
void crew_call_misfit(crew_call *call, crew_string message, const crew_value *data);

/* Completes a call that ended without having been: by what its handler returned. */
void crew_call_settle(crew_call *call, crew_status returned);

#endif
