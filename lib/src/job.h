/* A job: one message's way from bytes through its calls to the bytes of the answer. A batch of one is the
 * usual case; the calls of a larger one may run on many threads, and the last to complete joins the replies.
 *
 * Knows nothing of transports or threads: who makes a job says where its calls run and what done does. */
#ifndef JOB_H
#define JOB_H

#include "dispatcher_impl.h"

#include <rpcrew/impl/message.h>
#include <rpcrew/impl/protocol.h>

/* One call, from decoding to completion. */
struct crew_call {
    struct crew_job *job;
    const crew_wire_call *wire;
    struct crew_entry *entry; /* NULL until its method is found */
    struct crew_arguments arguments;
    crew_arena arena;   /* args and what the reply is built of; lent by the thread unless deferred */
    crew_buffer *reply; /* the job's own, or own_reply in a batch */
    crew_buffer own_reply;
    atomic_bool completed; /* by whoever is first */
    crew_call *before;     /* completed before this one; in the job's list */
    atomic_uint holds;     /* the running handler's, and a deferred call's completion */
    bool deferred;         /* written before the handle is handed on */
};

struct crew_job {
    /* set by the maker, zero but for these */
    const crew_dispatcher *dispatcher;
    const crew_limits *limits;
    const crew_protocol *protocol;
    crew_wire_errors errors; /* what they look like, where the protocol leaves that open */
    crew_string bytes;
    crew_arena *arena;                  /* the message's; read-only once decoded */
    crew_buffer *reply;                 /* gets the answer; empty: nothing to say */
    int64_t deadline_ms;                /* 0: none */
    bool answerable;                    /* there is somewhere to send an answer to */
    void (*done)(struct crew_job *job); /* once, on the thread that completes the last call */
    void *owner;
    const char *shed;            /* NULL, or the reason why its calls are not run */
    const atomic_bool *stopping; /* NULL, or: from when this is true, calls not yet run are shed */

    /* the calls */
    crew_wire_calls wire;
    struct crew_call *calls;
    uint32_t cursor; /* the next call to run; under the lock of whoever shares the job out */
    struct crew_job *next;
    _Atomic(crew_call *) completed; /* the latest */
    atomic_size_t remaining;        /* calls not completed */
    atomic_size_t room;             /* that replies may take beyond what each has of its own */
    atomic_bool lost;               /* some reply could not be written at all */
    atomic_size_t shed_count;
};

/* Decodes the bytes; the job has at least one call then. CREW_NO_MEMORY: done will not be called. */
CREW_NODISCARD crew_status crew_job_decode(struct crew_job *job);

/* Runs one call. scratch is the thread's own arena, empty before and after; the job may be gone on return. */
void crew_job_run(struct crew_job *job, size_t index, crew_arena *scratch);

/* Completes a call without running it, with the error that goes with the reason. */
crew_status crew_call_shed(crew_call *call, const char *reason);

/* crew_fail_value without a look at the service's table. */
crew_status crew_call_fail(crew_call *call, int64_t code, crew_string message, const crew_value *data);

/* Completes a call with one of the codes that the protocols define, in its standard words. */
crew_status crew_call_refuse(crew_call *call, int code, const crew_value *data);

/* Completes a call that ended without having been: by what its handler returned. */
void crew_call_settle(crew_call *call, crew_status returned);

/* The standard words of an error code; NULL if it has none. */
const char *crew_code_text(int64_t code);

#endif
