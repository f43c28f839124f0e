/* Bytes in, bytes out: a message's calls, one after another, on the caller's thread. */
#include "service/job.h"

#include "core/json.h"
#include "service/ending.h"

#include <semaphore.h>

const char *crew_answer_type(const char *content_type, crew_string request)
{
    const crew_protocol *protocol = crew_protocol_of(content_type, request);
    return protocol ? protocol->content_type : NULL;
}

static void log_end(const crew_call *call)
{
    crew_call_end end;
    char id[CREW_ID_TEXT];
    crew_ending_of(call, &end, id);
    crew_ending_log(&end);
}

static void post_done(struct crew_job *job)
{
    (void)sem_post(job->owner);
}

crew_status crew_handle(const crew_dispatcher *dispatcher, crew_string request,
                        const crew_handle_options *options, crew_bytes *answer)
{
    crew_limits limits = crew_limits_resolve(options ? &options->limits : NULL);
    const crew_protocol *protocol = crew_protocol_of(options ? options->content_type : NULL, request);
    if (!protocol)
        return CREW_UNSUPPORTED;
    sem_t done;
    crew_arena arena = { 0 }, scratch = { 0 };
    crew_buffer reply = { 0 };
    struct crew_job job = {
        .group = { .protocol = protocol, .answerable = true, .ended = log_end },
        .dispatcher = dispatcher,
        .limits = &limits,
        .errors = options ? options->errors : CREW_ERRORS_PAIR,
        .bytes = request,
        .arena = &arena,
        .reply = &reply,
        .done = post_done,
        .owner = &done,
    };
    (void)sem_init(&done, 0, 0);
    crew_status status = crew_job_decode(&job);
    size_t count = status == CREW_OK ? job.wire.count : 0;
    for (size_t i = 0; i < count; i++)
        crew_job_run(&job, i, &scratch);
    while (count && sem_wait(&done) != 0) /* a signal; deferred calls may still be running */
        continue;
    if (status == CREW_OK && reply.size)
        crew_buffer_append(&reply, "", 1);
    if (status == CREW_OK && reply.failed)
        status = CREW_NO_MEMORY;
    (void)sem_destroy(&done);
    crew_arena_fini(&scratch);
    crew_arena_fini(&arena);
    if (status != CREW_OK || reply.size == 0)
        crew_buffer_fini(&reply);
    if (status == CREW_OK)
        *answer = (crew_bytes){ reply.data, reply.size ? reply.size - 1 : 0 };
    return status;
}

crew_status crew_describe(const crew_dispatcher *dispatcher, crew_bytes *document)
{
    static const char call[] = "{\"jsonrpc\":\"2.0\",\"method\":\"rpc.discover\",\"id\":1}";
    crew_bytes answer = { 0 };
    crew_buffer text = { 0 };
    crew_status status = crew_handle(dispatcher, crew_str(call), NULL, &answer);
    if (status == CREW_OK)
        status = crew_json_extract((crew_string){ answer.data, answer.size }, "result", &text);
    crew_bytes_free(&answer);
    return crew_buffer_give(&text, status, document);
}
