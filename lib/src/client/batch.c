/* Many calls in parallel over one client, results in the order of adding. */
#include "client/client.h"
#include "core/thread.h"

#include <stdlib.h>

struct member {
    struct crew_batch *batch;
    const char *method;
    const crew_value *params;
    crew_result *result;
    crew_error why;
};

struct crew_batch {
    crew_client *client;
    crew_arena arena; /* methods and params */
    struct member *members;
    size_t count, room;
    bool run;
    pthread_mutex_t mutex; /* of outstanding, and of members while they run */
    pthread_cond_t ended;
    size_t outstanding;
    const crew_call_options *options; /* while it runs */
};

crew_status crew_batch_new(crew_batch **batch, crew_client *client)
{
    crew_batch *made = calloc(1, sizeof *made);
    if (!made)
        return CREW_NO_MEMORY;
    made->client = client;
    (void)pthread_mutex_init(&made->mutex, NULL);
    (void)pthread_cond_init(&made->ended, NULL);
    *batch = made;
    return CREW_OK;
}

void crew_batch_free(crew_batch *batch)
{
    if (!batch)
        return;
    for (size_t i = 0; i < batch->count; i++)
        crew_result_free(batch->members[i].result);
    free(batch->members);
    crew_arena_fini(&batch->arena);
    (void)pthread_cond_destroy(&batch->ended);
    (void)pthread_mutex_destroy(&batch->mutex);
    free(batch);
}

static crew_status add(crew_batch *batch, const char *method, const crew_value *params)
{
    if (batch->count == batch->room) {
        size_t room = batch->room ? batch->room * 2 : 16;
        struct member *members = realloc(batch->members, room * sizeof *members);
        if (!members)
            return CREW_NO_MEMORY;
        batch->members = members;
        batch->room = room;
    }
    const char *name = crew_arena_string(&batch->arena, crew_str(method)).data;
    if (!name)
        return CREW_NO_MEMORY;
    batch->members[batch->count++] =
        (struct member){ .batch = batch, .method = name, .params = params, .why = { .status = CREW_CLOSED } };
    return CREW_OK;
}

crew_status crew_batch_add_value(crew_batch *batch, const char *method, const crew_value *params)
{
    return batch->run ? CREW_CLOSED : add(batch, method, params);
}

crew_status crew_batch_add(crew_batch *batch, const char *method, const char *format, ...)
{
    if (batch->run)
        return CREW_CLOSED;
    const crew_value *params = NULL;
    crew_status status = CREW_OK;
    if (format && *format) {
        va_list arguments;
        va_start(arguments, format);
        status = crew_vpack(&batch->arena, &params, format, arguments);
        va_end(arguments);
    }
    return status == CREW_OK ? add(batch, method, params) : status;
}

static void on_done(void *context, crew_result *result, const crew_error *why)
{
    struct member *member = context;
    crew_batch *batch = member->batch;
    pthread_mutex_lock(&batch->mutex);
    member->result = result;
    member->why = *why;
    batch->outstanding--;
    pthread_cond_signal(&batch->ended);
    pthread_mutex_unlock(&batch->mutex);
}

/* Starts a member; when the client has no room, after one of ours has ended. */
static void start(crew_batch *batch, struct member *member)
{
    for (;;) {
        crew_error why = { .status = CREW_OK };
        pthread_mutex_lock(&batch->mutex);
        bool others = batch->outstanding++ > 0;
        pthread_mutex_unlock(&batch->mutex);
        crew_status status = crew_client_begin(batch->client,
                                               &(struct crew_beginning){ .method = member->method,
                                                                         .params = member->params,
                                                                         .options = batch->options,
                                                                         .on_done = on_done,
                                                                         .context = member,
                                                                         .waits_for_room = others },
                                               &why);
        if (status == CREW_OK)
            return;
        pthread_mutex_lock(&batch->mutex);
        size_t left = --batch->outstanding;
        /* If there were others, one of them may have made room meanwhile, or will. */
        bool again = status == CREW_OVERLOADED && others;
        while (again && left && batch->outstanding == left)
            pthread_cond_wait(&batch->ended, &batch->mutex);
        if (!again)
            member->why = why;
        pthread_mutex_unlock(&batch->mutex);
        if (!again)
            return;
    }
}

crew_status crew_batch_run(crew_batch *batch, crew_error *why)
{
    return crew_batch_run_with(batch, NULL, why);
}

crew_status crew_batch_run_with(crew_batch *batch, const crew_call_options *options, crew_error *why)
{
    if (batch->run)
        return crew_error_set(why, CREW_CLOSED, "the batch has run already");
    if (crew_endpoint_is_a_client_s())
        return crew_error_set(why, CREW_WOULD_DEADLOCK, "%s", crew_status_text(CREW_WOULD_DEADLOCK));
    batch->run = true;
    batch->options = options;
    crew_thread_begin_wait();
    for (size_t i = 0; i < batch->count; i++)
        start(batch, &batch->members[i]);
    pthread_mutex_lock(&batch->mutex);
    while (batch->outstanding)
        pthread_cond_wait(&batch->ended, &batch->mutex);
    pthread_mutex_unlock(&batch->mutex);
    crew_thread_end_wait();
    for (size_t i = 0; i < batch->count; i++) {
        const crew_error *one = &batch->members[i].why;
        if (one->status != CREW_OK && why)
            *why = *one;
        if (one->status != CREW_OK)
            return one->status;
    }
    return CREW_OK;
}

size_t crew_batch_count(const crew_batch *batch)
{
    return batch->count;
}

crew_status crew_batch_status(const crew_batch *batch, size_t index)
{
    return index < batch->count ? batch->members[index].why.status : CREW_NOT_FOUND;
}

const crew_error *crew_batch_error(const crew_batch *batch, size_t index)
{
    return index < batch->count ? &batch->members[index].why : NULL;
}

const crew_value *crew_batch_value(const crew_batch *batch, size_t index)
{
    return index < batch->count ? crew_result_value(batch->members[index].result) : NULL;
}
