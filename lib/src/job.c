/* Jobs: decoding, running and completing calls, joining their replies. */
#include "job.h"

#include <rpcrew/log.h>

const char *crew_code_text(int64_t code)
{
    switch (code) {
    case CREW_CODE_PARSE_ERROR: return "Parse error";
    case CREW_CODE_INVALID_REQUEST: return "Invalid Request";
    case CREW_CODE_METHOD_NOT_FOUND: return "Method not found";
    case CREW_CODE_INVALID_PARAMS: return "Invalid params";
    case CREW_CODE_INTERNAL_ERROR: return "Internal error";
    case CREW_CODE_OVERLOADED: return "Overloaded";
    case CREW_CODE_REDELIVERED: return "Redelivered";
    default: return NULL;
    }
}

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

crew_status crew_job_decode(struct crew_job *job)
{
    crew_status status = job->protocol->decode_calls(job->bytes, job->limits, job->arena, &job->wire);
    if (status != CREW_OK)
        return status;
    size_t count = job->wire.count;
    job->calls = crew_arena_zalloc(job->arena, count * sizeof *job->calls);
    if (!job->calls)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        struct crew_call *call = &job->calls[i];
        call->job = job;
        job->wire.items[i].errors = job->errors;
        call->wire = &job->wire.items[i];
        call->reply = job->wire.batch ? &call->own_reply : job->reply;
        atomic_init(&call->holds, 1);
    }
    atomic_init(&job->remaining, count);
    atomic_init(&job->room, shared_room(job));
    return CREW_OK;
}

/* ---- the end of a job ---- */

static void join_reply(struct crew_job *job, crew_buffer *reply)
{
    const crew_protocol *protocol = job->protocol;
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
    if (*job->protocol->batch_open) {
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
        crew_buffer_text(job->reply, job->protocol->batch_close);
    if (atomic_load(&job->lost)) /* a batch with one of its replies missing would be a wrong answer */
        job->reply->failed = true;
}

/* A hold on the call is gone; with the last one the call is, and with the last call the job. */
static void release(struct crew_call *call)
{
    if (atomic_fetch_sub(&call->holds, 1) > 1)
        return;
    struct crew_job *job = call->job;
    crew_arena_fini(&call->arena);
    if (call->entry)
        atomic_fetch_sub(&call->entry->running, 1);
    if (atomic_fetch_sub(&job->remaining, 1) > 1)
        return;
    if (job->wire.batch)
        join_replies(job);
    job->done(job);
}

/* ---- completing a call ---- */

/* Whether this is the completion that counts. */
static bool win(struct crew_call *call)
{
    return !atomic_exchange(&call->completed, true);
}

static bool silent(const struct crew_call *call)
{
    return call->wire->one_way || !call->job->answerable;
}

/* Takes room for the reply, if there is as much. */
static bool fits(struct crew_call *call)
{
    struct crew_job *job = call->job;
    size_t own = own_room(job, call->wire), size = call->reply->size;
    size_t more = size > own ? size - own : 0, room = atomic_load(&job->room);
    do {
        if (more > room)
            return false;
    } while (!atomic_compare_exchange_weak(&job->room, &room, room - more));
    return true;
}

static void write_failure(struct crew_call *call, crew_status status)
{
    static const char name[] = "reason";
    const crew_protocol *protocol = call->job->protocol;
    crew_string words = crew_str(crew_code_text(CREW_CODE_INTERNAL_ERROR));
    const crew_value *data = NULL;
    crew_arena arena = { 0 };
    crew_buffer_clear(call->reply);
    if (crew_pack(&arena, &data, "{s:s}", name, crew_status_text(status)) != CREW_OK)
        data = NULL;
    if (protocol->encode_error(call->wire, CREW_CODE_INTERNAL_ERROR, words, data, call->reply) != CREW_OK)
        crew_log(CREW_LOG_ERROR, "a reply was lost", "{s:s}", name, crew_status_text(status));
    crew_arena_fini(&arena);
}

/* After the encoding of a winning completion. */
static crew_status complete(struct crew_call *call, crew_status encoded)
{
    crew_status status = encoded;
    if (status == CREW_OK && !silent(call) && !fits(call))
        status = CREW_LIMIT;
    if (status != CREW_OK)
        write_failure(call, status);
    if (call->reply->failed)
        atomic_store(&call->job->lost, true);
    call->before = atomic_load(&call->job->completed);
    while (!atomic_compare_exchange_weak(&call->job->completed, &call->before, call))
        continue;
    if (call->deferred)
        release(call);
    return status;
}

crew_status crew_reply_value(crew_call *call, const crew_value *value)
{
    if (!win(call))
        return CREW_DONE_ALREADY;
    if (silent(call))
        return complete(call, CREW_OK);
    return complete(call, call->job->protocol->encode_result(call->wire, value, call->reply));
}

crew_status crew_call_fail(crew_call *call, int64_t code, crew_string message, const crew_value *data)
{
    if (!win(call))
        return CREW_DONE_ALREADY;
    if (silent(call))
        return complete(call, CREW_OK);
    return complete(call, call->job->protocol->encode_error(call->wire, code, message, data, call->reply));
}

crew_status crew_call_refuse(crew_call *call, int code, const crew_value *data)
{
    return crew_call_fail(call, code, crew_str(crew_code_text(code)), data);
}

crew_status crew_call_shed(crew_call *call, const char *reason)
{
    bool redelivered = strcmp(reason, CREW_REASON_REDELIVERED) == 0;
    crew_executed executed = redelivered ? CREW_EXECUTED_UNKNOWN : CREW_EXECUTED_NO;
    const crew_value *data = NULL;
    atomic_fetch_add(&call->job->shed_count, 1);
    if (crew_pack(&call->arena, &data, "{s:{s:s,s:s}}", "rpcrew", "executed", crew_executed_name(executed),
                  "reason", reason) != CREW_OK)
        data = NULL;
    return crew_call_refuse(call, redelivered ? CREW_CODE_REDELIVERED : CREW_CODE_OVERLOADED, data);
}

void crew_call_settle(crew_call *call, crew_status returned)
{
    if (returned == CREW_OK) {
        if (!call->deferred)
            (void)crew_reply_value(call, NULL);
        return;
    }
    if (!win(call))
        return;
    /* What made the handler fail is not the peer's business, beyond the status. */
    if (silent(call))
        (void)complete(call, CREW_OK);
    else
        (void)complete(call, returned);
}

crew_call *crew_call_defer(crew_call *call)
{
    call->deferred = true;
    atomic_fetch_add(&call->holds, 1);
    return call;
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
    release(call);
}
