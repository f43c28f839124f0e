/* Jobs: decoding, running and completing calls, joining their replies. */
#include "service/job.h"

/* In a batch each call has room of its own, for the error that stands for a reply which is too large, so that
 * it costs the others nothing. */
static size_t own_room(const struct crew_job *job, const crew_wire_call *wire)
{
    enum { ERROR_BYTES = 160 };
    return job->wire.batch && !wire->one_way ? ERROR_BYTES + wire->id.size : 0;
}

/* What of the message limit is nobody's own. */
static size_t shared_room(const struct crew_job *job)
{
    size_t most = job->limits->message_bytes, own = 0;
    for (size_t i = 0; i < job->wire.count; i++)
        own += own_room(job, &job->wire.items[i]);
    return most > own ? most - own : 0;
}

static struct crew_job *job_of(const crew_call *call)
{
    return (struct crew_job *)(void *)call->group;
}

/* ---- the end of a call, and of the job ---- */

/* Takes room for the reply, if there is as much. */
static bool fits(struct crew_call *call)
{
    struct crew_job *job = job_of(call);
    size_t own = own_room(job, call->wire), size = call->reply->size;
    size_t more = size > own ? size - own : 0, room = atomic_load(&job->room);
    do {
        if (more > room)
            return false;
    } while (!atomic_compare_exchange_weak(&job->room, &room, room - more));
    return true;
}

static void join_reply(struct crew_job *job, crew_buffer *reply)
{
    const crew_protocol *protocol = job->group.protocol;
    if (reply->size) {
        crew_buffer_text(job->reply, job->reply->size ? protocol->batch_separator : protocol->batch_open);
        crew_buffer_append(job->reply, reply->data, reply->size);
    }
    crew_buffer_fini(reply);
}

/* The calls of a batch are answered in their order; those that only came in one body, as they were completed.
 */
static void join_replies(struct crew_job *job)
{
    if (*job->group.protocol->batch_open) {
        for (size_t i = 0; i < job->wire.count; i++)
            join_reply(job, &job->calls[i].own_reply);
    } else {
        crew_call *first = NULL;
        for (crew_call *call = atomic_load(&job->completed), *before; call; call = before) {
            before = call->before;
            call->before = first; /* what was before it is now behind it */
            first = call;
        }
        for (; first; first = first->before)
            join_reply(job, &first->own_reply);
    }
    if (job->reply->size)
        crew_buffer_text(job->reply, job->group.protocol->batch_close);
    if (atomic_load(&job->lost)) /* a batch with one of its replies missing would be a wrong answer */
        job->reply->failed = true;
}

static void completed(crew_call *call)
{
    struct crew_job *job = job_of(call);
    if (call->reply->failed)
        atomic_store(&job->lost, true);
    call->before = atomic_load(&job->completed);
    while (!atomic_compare_exchange_weak(&job->completed, &call->before, call))
        continue;
}

static void released(crew_call *call)
{
    struct crew_job *job = job_of(call);
    if (atomic_fetch_sub(&job->remaining, 1) > 1)
        return;
    if (job->wire.batch)
        join_replies(job);
    job->done(job);
}

/* ---- a job ---- */

crew_status crew_job_decode(struct crew_job *job)
{
    crew_status status = job->group.protocol->decode_calls(job->bytes, job->limits, job->arena, &job->wire);
    if (status != CREW_OK)
        return status;
    size_t count = job->wire.count;
    if (job->wrong && job->wire.malformed &&
        (status = crew_pack(job->arena, &job->wire.items[count - 1].data, "{s:s}", "reason", job->wrong)) !=
            CREW_OK)
        return status;
    job->calls = crew_arena_zalloc(job->arena, count * sizeof *job->calls);
    if (!job->calls)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        struct crew_call *call = &job->calls[i];
        call->group = &job->group;
        job->wire.items[i].errors = job->errors;
        call->wire = &job->wire.items[i];
        call->reply = job->wire.batch ? &call->own_reply : job->reply;
        atomic_init(&call->holds, 1);
    }
    job->group.batch = job->wire.batch;
    job->group.fits = fits;
    job->group.completed = completed;
    job->group.released = released;
    atomic_init(&job->remaining, count);
    atomic_init(&job->room, shared_room(job));
    return CREW_OK;
}

bool crew_job_cancel(struct crew_job *job, const crew_string *id)
{
    bool found = false;
    for (size_t i = 0; i < job->wire.count; i++) {
        const crew_wire_call *wire = &job->wire.items[i];
        if (id && (wire->one_way || !crew_string_equal(wire->id, *id)))
            continue;
        found = true;
        if (job->group.tokens)
            crew_token_raise(job->group.tokens, &job->calls[i].token);
    }
    return found;
}

void crew_job_run(struct crew_job *job, size_t index, crew_arena *scratch)
{
    struct crew_call *call = &job->calls[index];
    call->arena = *scratch;
    *scratch = (crew_arena){ 0 };
    crew_dispatch(job->dispatcher, call);
    if (!call->deferred) {
        *scratch = call->arena;
        call->arena = (crew_arena){ 0 };
        crew_arena_reset(scratch);
    }
    crew_call_release(call);
}
