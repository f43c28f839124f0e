/* A job: one message's way from bytes through its calls to the bytes of the answer. A batch of one is the
 * usual case; the calls of a larger one may run on many threads, and the last to complete joins the replies.
 *
 * Knows nothing of transports or threads: who makes a job says where its calls run and what done does. */
#ifndef SERVICE_JOB_H
#define SERVICE_JOB_H

#include "service/dispatch.h"

#include <rpcrew/impl/message.h>

struct crew_job {
    struct crew_call_group group; /* first, so that one is found from the other */
    /* set by the maker, zero but for these and the group's, up to tokens */
    const crew_dispatcher *dispatcher;
    const crew_limits *limits;
    crew_wire_errors errors; /* what they look like, where the protocol leaves that open */
    crew_string bytes;
    const char
        *wrong; /* why they are no message, as whoever cut them out has found; NULL: nothing is known */
    crew_arena *arena;                  /* the message's; read-only once decoded */
    crew_buffer *reply;                 /* gets the answer; empty: nothing to say */
    void (*done)(struct crew_job *job); /* once, on the thread that completes the last call */
    void *owner;

    /* the calls */
    crew_wire_calls wire;
    struct crew_call *calls;
    uint32_t cursor; /* the next call to run; under the lock of whoever shares the job out */
    struct crew_job *next;
    _Atomic(crew_call *) completed; /* the latest */
    atomic_size_t remaining;        /* calls not completed */
    atomic_size_t room;             /* that replies may take beyond what each has of its own */
    atomic_bool lost;               /* some reply could not be written at all */
};

/* Decodes the bytes; the job has at least one call then. CREW_NO_MEMORY: done will not be called. */
CREW_NODISCARD crew_status crew_job_decode(struct crew_job *job);

/* Cancels the calls with an id, as the protocol wrote it, or all (id NULL); whether there are any. What has
 * not begun is not run, what runs is told. Any thread, while the job is not done. */
bool crew_job_cancel(struct crew_job *job, const crew_string *id);

/* Runs one call. scratch is the thread's own arena, empty before and after; the job may be gone on return. */
void crew_job_run(struct crew_job *job, size_t index, crew_arena *scratch);

#endif
