/* The client: starting calls and waiting for them. How they end is in outcome.c. */
#include "client/client.h"
#include "client/tell.h"

#include "core/thread.h"

#include <rpcrew/service.h>

#include <stdio.h>
#include <stdlib.h>

enum { LINGER_MS = 1000 };

/* ---- life ---- */

static crew_status choose_protocol(crew_client *client, crew_error *why)
{
    const char *name = client->options.protocol ? client->options.protocol : "jsonrpc";
    client->protocol = crew_protocol_find(name);
    if (client->protocol)
        return CREW_OK;
    crew_buffer known = { 0 };
    for (size_t i = 0; crew_protocol_at(i); i++)
        crew_buffer_printf(&known, "%s%s", i ? ", " : "", crew_protocol_at(i)->name);
    crew_error_set(why, CREW_BAD_ARGUMENT, "no protocol '%s'; there are %.*s", name,
                   CREW_STR(crew_buffer_string(&known)));
    crew_buffer_fini(&known);
    return CREW_BAD_ARGUMENT;
}

/* Ends the first count links, each after completing its calls. */
static void close_links(crew_client *client, size_t count)
{
    for (size_t i = 0; i < count; i++)
        crew_endpoint_command(&client->links[i].endpoint, CREW_ENDPOINT_CLOSE);
    for (size_t i = 0; i < count; i++)
        crew_endpoint_join(&client->links[i].endpoint);
    crew_serving_stop(&client->serving); /* its answers go to their queues */
    for (size_t i = 0; i < count; i++) {
        crew_endpoint_fini(&client->links[i].endpoint);
        crew_due_fini(&client->links[i].due);
    }
    free(client->links);
}

/* Finds its place in the metrics. */
static crew_status count_in(crew_client *client, const char *url, crew_error *why)
{
    crew_url *parsed;
    crew_status status = crew_url_parse(url, &parsed, why);
    if (status != CREW_OK)
        return status;
    client->counts = crew_metrics_client(client->options.metrics, crew_url_text(parsed));
    crew_url_free(parsed);
    return client->counts ? CREW_OK : crew_error_set(why, CREW_NO_MEMORY, "no memory");
}

static crew_status open_links(crew_client *client, const char *url, crew_error *why)
{
    const crew_client_options *o = &client->options;
    struct crew_endpoint_options options = {
        .owner = &crew_client_owner,
        .context = client,
        .background = true,
        .brief = o->brief,
        .linger_ms = LINGER_MS,
        .in_flight_max = o->in_flight_max ? o->in_flight_max : 65536,
        .timeout_ms = o->timeout_ms ? o->timeout_ms : 30000,
        .connect_timeout_ms = o->connect_timeout_ms ? o->connect_timeout_ms : 5000,
        .limits = o->limits,
        .trace = o->trace,
        .trace_context = o->trace_context,
    };
    size_t count;
    crew_status status = crew_endpoint_count(url, client->protocol->content_type, &count, why);
    if (status == CREW_OK && o->metrics)
        status = count_in(client, url, why);
    if (status != CREW_OK)
        return status;
    client->links = calloc(count, sizeof *client->links);
    if (!client->links)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    client->link_count = count;
    size_t started = 0;
    status = crew_serving_start(&client->serving, o->dispatcher, &o->limits, why);
    if (status != CREW_OK) {
        free(client->links);
        return status;
    }
    for (; started < count && status == CREW_OK; started++) {
        options.host = started;
        status = crew_endpoint_start(&client->links[started].endpoint, url, &options, why);
    }
    if (status != CREW_OK)
        close_links(client, started - 1);
    return status;
}

crew_status crew_client_new(crew_client **client, const char *url, const crew_client_options *options,
                            crew_error *why)
{
    crew_client *c = calloc(1, sizeof *c);
    if (!c)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    c->options = options ? *options : (crew_client_options){ 0 };
    c->prefix = strdup(c->options.prefix ? c->options.prefix : "");
    crew_metrics_hold(c->options.metrics);
    c->budget_tenths = CREW_BUDGET_TENTHS_FIRST;
    (void)pthread_mutex_init(&c->mutex, NULL);
    crew_status status =
        c->prefix ? choose_protocol(c, why) : crew_error_set(why, CREW_NO_MEMORY, "no memory");
    if (status == CREW_OK)
        status = open_links(c, url, why);
    if (status != CREW_OK) {
        (void)pthread_mutex_destroy(&c->mutex);
        crew_metrics_free(c->options.metrics);
        free(c->prefix);
        free(c);
        return status;
    }
    *client = c;
    return CREW_OK;
}

void crew_client_free(crew_client *client)
{
    if (!client || crew_client_is_shared(client))
        return;
    pthread_mutex_lock(&client->mutex);
    client->closing = true;
    pthread_mutex_unlock(&client->mutex);
    close_links(client, client->link_count);
    crew_client_leave_back(client);
    crew_table_fini(&client->table);
    (void)pthread_mutex_destroy(&client->mutex);
    crew_metrics_free(client->options.metrics);
    free(client->prefix);
    free(client);
}

void crew_client_stats_get(crew_client *client, crew_client_stats *stats)
{
    pthread_mutex_lock(&client->mutex);
    *stats = (crew_client_stats){ .calls = client->calls,
                                  .resent = client->tally[CREW_CLIENT_RESENT],
                                  .retried = client->tally[CREW_CLIENT_RETRIED],
                                  .stray_replies = client->tally[CREW_CLIENT_STRAY_REPLIES],
                                  .bad_replies = client->tally[CREW_CLIENT_BAD_REPLIES],
                                  .outstanding = client->table.count };
    pthread_mutex_unlock(&client->mutex);
}

/* ---- starting a call ---- */

static crew_status pending_new(const crew_client *client, const char *method,
                               const crew_call_options *options, struct crew_pending **out)
{
    struct crew_pending *call = calloc(1, sizeof *call);
    size_t prefix_size = strlen(client->prefix), size = strlen(method);
    char *name = malloc(prefix_size + size + 1);
    if (!call || !name) {
        free(call);
        free(name);
        return CREW_NO_MEMORY;
    }
    memcpy(name, client->prefix, prefix_size);
    memcpy(name + prefix_size, method, size + 1);
    call->method = name;
    call->heap_index = SIZE_MAX;
    if (options)
        call->options = *options;
    unsigned timeout_ms =
        call->options.timeout_ms ? call->options.timeout_ms : client->links[0].endpoint.options.timeout_ms;
    call->started_ms = crew_now_ms();
    call->observers = atomic_load(&client->observer_count);
    call->started_ns = client->counts || call->observers ? crew_now_ns() : 0;
    call->deadline_ms = call->started_ms + timeout_ms;
    if (call->options.within) {
        int64_t left = crew_call_remaining_ms(call->options.within);
        if (left < timeout_ms)
            call->deadline_ms = call->started_ms + left;
        call->options.within = NULL; /* it may be gone before this call is */
    }
    *out = call;
    return CREW_OK;
}

static crew_status make_request(const crew_client *client, struct crew_pending *call,
                                const crew_value *params, crew_message **out)
{
    crew_message *message = crew_message_new();
    if (!message)
        return CREW_NO_MEMORY;
    message->kind = CREW_MESSAGE_REQUEST;
    message->correlation = call->id;
    message->one_way = call->options.one_way;
    message->deadline_ms = call->deadline_ms;
    message->content_type = client->protocol->content_type;
    crew_status status = client->protocol->encode_call(crew_str(call->method), params,
                                                       call->options.one_way ? 0 : call->id, &message->body);
    if (status == CREW_OK && call->options.headers)
        status = crew_client_copy_headers(&message->arena, call->options.headers, &message->headers);
    call->options.headers = NULL; /* they may be gone before this call is */
    call->bytes = message->body.size;
    if (status == CREW_OK && message->body.size > client->links[0].endpoint.options.limits.message_bytes)
        status = CREW_LIMIT;
    if (status != CREW_OK) {
        crew_message_free(message);
        return status;
    }
    *out = message;
    return CREW_OK;
}

/* Puts the call under way: from here on the I/O thread may end it at any time. */
static crew_status hand_over(crew_client *client, struct crew_pending *call, crew_message *message)
{
    crew_list one = { 0 };
    crew_list_append(&one, message);
    pthread_mutex_lock(&client->mutex);
    call->link = crew_client_choose(client, NULL);
    call->due_ms = crew_client_due(call);
    crew_status status = client->closing ? CREW_CLOSED : crew_due_add(&call->link->due, call);
    if (status == CREW_OK) {
        call->state = CREW_CALL_UNWRITTEN;
        client->calls++;
        client->budget_tenths += client->budget_tenths < CREW_BUDGET_TENTHS_MOST;
        crew_client_gauge(client, CREW_CLIENT_OUTSTANDING, 1);
        crew_endpoint_push(&call->link->endpoint, &one);
    }
    pthread_mutex_unlock(&client->mutex);
    crew_list_free(&one);
    return status;
}

/* The id is needed for encoding, so the call has its place in the table before it is under way. */
static crew_status start(crew_client *client, struct crew_pending *call, const crew_value *params,
                         uint32_t *id)
{
    crew_message *message = NULL;
    if (call->deadline_ms <= call->started_ms)
        return CREW_EXPIRED;
    pthread_mutex_lock(&client->mutex);
    client->table.most = client->links[0].endpoint.options.in_flight_max;
    crew_status status = client->closing ? CREW_CLOSED : crew_table_add(&client->table, call);
    pthread_mutex_unlock(&client->mutex);
    if (status != CREW_OK)
        return status;
    if (id)
        *id = call->id; /* now: once it is under way, call and id may be gone */
    status = make_request(client, call, params, &message);
    if (status == CREW_OK)
        status = hand_over(client, call, message);
    if (status != CREW_OK) {
        pthread_mutex_lock(&client->mutex);
        crew_table_remove(&client->table, call);
        pthread_mutex_unlock(&client->mutex);
    }
    return status;
}

crew_status crew_client_begin(crew_client *client, const struct crew_beginning *beginning, crew_error *why)
{
    struct crew_pending *call;
    crew_status status = pending_new(client, beginning->method, beginning->options, &call);
    if (status != CREW_OK)
        return crew_error_set(why, status, "no memory");
    call->on_done = beginning->on_done;
    call->context = beginning->context;
    const char *what = NULL;
    status =
        call->options.headers ? crew_client_check_headers(client, call->options.headers, &what) : CREW_OK;
    if (status == CREW_OK)
        status = start(client, call, beginning->params, beginning->id);
    if (status != CREW_OK) {
        char words[80];
        if (!what && status == CREW_LIMIT &&
            call->bytes > client->links[0].endpoint.options.limits.message_bytes) {
            (void)snprintf(words, sizeof words, "the request has %zu bytes, more than max_bytes allows",
                           call->bytes);
            what = words;
        }
        if (!what)
            what = status == CREW_OVERLOADED ? "too many calls are outstanding" : crew_status_text(status);
        crew_error reason;
        crew_client_describe(client, call, status, CREW_EXECUTED_NO, what, &reason);
        if (status != CREW_OVERLOADED || !beginning->waits_for_room)
            crew_client_tell_call(client, call, &reason, 0);
        if (why)
            *why = reason;
        crew_pending_free(call);
    }
    return status;
}

crew_status crew_client_start_value(crew_client *client, const char *method, const crew_value *params,
                                    const crew_call_options *options, crew_completion *on_done, void *context,
                                    uint32_t *id, crew_error *why)
{
    return crew_client_begin(client,
                             &(struct crew_beginning){ .method = method,
                                                       .params = params,
                                                       .options = options,
                                                       .on_done = on_done,
                                                       .context = context,
                                                       .id = id },
                             why);
}

crew_status crew_client_cancel(crew_client *client, uint32_t id)
{
    pthread_mutex_lock(&client->mutex);
    struct crew_pending *call = crew_table_find(&client->table, id);
    bool won = call && !call->cancelled && call->state != CREW_CALL_STARTING;
    if (won) {
        call->cancelled = true;
        call->due_ms = 0;
        crew_due_update(&call->link->due, call);
        crew_queue_wake(&call->link->endpoint.queue);
    }
    pthread_mutex_unlock(&client->mutex);
    return won ? CREW_OK : CREW_NOT_FOUND;
}

/* ---- waiting for a call ---- */

struct waiter {
    pthread_mutex_t mutex;
    pthread_cond_t done;
    bool ended;
    crew_result *result;
    crew_error why;
};

static void wake_waiter(void *context, crew_result *result, const crew_error *why)
{
    struct waiter *waiter = context;
    pthread_mutex_lock(&waiter->mutex);
    waiter->ended = true;
    waiter->result = result;
    waiter->why = *why;
    pthread_cond_signal(&waiter->done); /* under the lock: the waiter is on the stack of whoever waits */
    pthread_mutex_unlock(&waiter->mutex);
}

static crew_status call_and_wait(crew_client *client, const char *method, const crew_value *params,
                                 const crew_call_options *options, crew_result **result, crew_error *why)
{
    struct waiter waiter = { .mutex = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER };
    if (result)
        *result = NULL;
    if (crew_endpoint_is_a_client_s())
        return crew_error_set(why, CREW_WOULD_DEADLOCK, "%s: %s", method,
                              crew_status_text(CREW_WOULD_DEADLOCK));
    crew_status status =
        crew_client_start_value(client, method, params, options, wake_waiter, &waiter, NULL, why);
    if (status != CREW_OK)
        return status;
    crew_thread_begin_wait();
    pthread_mutex_lock(&waiter.mutex);
    while (!waiter.ended)
        pthread_cond_wait(&waiter.done, &waiter.mutex);
    pthread_mutex_unlock(&waiter.mutex);
    crew_thread_end_wait();
    (void)pthread_cond_destroy(&waiter.done);
    (void)pthread_mutex_destroy(&waiter.mutex);
    if (result)
        *result = waiter.result;
    else
        crew_result_free(waiter.result);
    if (why && waiter.why.status != CREW_OK)
        *why = waiter.why;
    return waiter.why.status;
}

crew_status crew_client_call_value(crew_client *client, const char *method, const crew_value *params,
                                   const crew_call_options *options, crew_result **result, crew_error *why)
{
    return call_and_wait(client, method, params, options, result, why);
}

crew_status crew_client_notify_value(crew_client *client, const char *method, const crew_value *params,
                                     const crew_call_options *options, crew_error *why)
{
    crew_call_options one_way = options ? *options : (crew_call_options){ 0 };
    one_way.one_way = true;
    return call_and_wait(client, method, params, &one_way, NULL, why);
}

/* ---- by format ---- */

/* Packs params into the arena; "" and NULL are none. */
static crew_status pack_params(crew_arena *arena, const char *method, const char *format, va_list arguments,
                               const crew_value **params, crew_error *why)
{
    *params = NULL;
    if (!format || !*format)
        return CREW_OK;
    crew_status status = crew_vpack(arena, params, format, arguments);
    if (status != CREW_OK)
        crew_error_set(why, status, "%s: params '%s': %s", method, format, crew_status_text(status));
    return status;
}

static crew_status call_packed(crew_client *client, const crew_call_options *options, const char *method,
                               crew_result **result, crew_error *why, const char *format, va_list arguments)
{
    crew_arena arena = { 0 };
    const crew_value *params;
    if (result)
        *result = NULL;
    crew_status status = pack_params(&arena, method, format, arguments, &params, why);
    if (status == CREW_OK)
        status = call_and_wait(client, method, params, options, result, why);
    crew_arena_fini(&arena);
    return status;
}

crew_status crew_client_call(crew_client *client, const char *method, crew_result **result, crew_error *why,
                             const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    crew_status status = call_packed(client, NULL, method, result, why, format, arguments);
    va_end(arguments);
    return status;
}

crew_status crew_client_call_with(crew_client *client, const crew_call_options *options, const char *method,
                                  crew_result **result, crew_error *why, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    crew_status status = call_packed(client, options, method, result, why, format, arguments);
    va_end(arguments);
    return status;
}

crew_status crew_client_notify(crew_client *client, const char *method, crew_error *why, const char *format,
                               ...)
{
    crew_arena arena = { 0 };
    const crew_value *params;
    va_list arguments;
    va_start(arguments, format);
    crew_status status = pack_params(&arena, method, format, arguments, &params, why);
    va_end(arguments);
    if (status == CREW_OK)
        status = crew_client_notify_value(client, method, params, NULL, why);
    crew_arena_fini(&arena);
    return status;
}

crew_status crew_client_start(crew_client *client, const char *method, crew_completion *on_done,
                              void *context, crew_error *why, const char *format, ...)
{
    crew_arena arena = { 0 };
    const crew_value *params;
    va_list arguments;
    va_start(arguments, format);
    crew_status status = pack_params(&arena, method, format, arguments, &params, why);
    va_end(arguments);
    if (status == CREW_OK)
        status = crew_client_start_value(client, method, params, NULL, on_done, context, NULL, why);
    crew_arena_fini(&arena);
    return status;
}
