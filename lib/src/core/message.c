/* Messages, their lists, and the spare ones that an endpoint keeps. */
#include "core/value.h"

#include <rpcrew/impl/message.h>

#include <stdlib.h>
#include <time.h>

crew_message *crew_message_new(void)
{
    return calloc(1, sizeof(crew_message));
}

void crew_message_free(crew_message *message)
{
    if (!message)
        return;
    crew_peer_release(message->peer);
    crew_buffer_fini(&message->body);
    crew_buffer_fini(&message->reply);
    crew_arena_fini(&message->arena);
    free(message);
}

bool crew_message_is_copy(const crew_message *message, const crew_message *other)
{
    return crew_string_equal(message->origin, other->origin) && crew_string_equal(message->key, other->key) &&
           crew_string_equal(crew_buffer_string(&message->body), crew_buffer_string(&other->body));
}

void crew_list_append(crew_list *list, crew_message *message)
{
    message->next = NULL;
    if (list->tail)
        list->tail->next = message;
    else
        list->head = message;
    list->tail = message;
    list->count++;
}

crew_message *crew_list_take(crew_list *list)
{
    crew_message *message = list->head;
    if (!message)
        return NULL;
    list->head = message->next;
    if (!list->head)
        list->tail = NULL;
    list->count--;
    message->next = NULL;
    return message;
}

void crew_list_move(crew_list *list, crew_list *source)
{
    if (!source->head)
        return;
    if (list->tail)
        list->tail->next = source->head;
    else
        list->head = source->head;
    list->tail = source->tail;
    list->count += source->count;
    *source = (crew_list){ 0 };
}

void crew_list_free(crew_list *list)
{
    for (crew_message *message; (message = crew_list_take(list));)
        crew_message_free(message);
}

static size_t bytes_of(const crew_message *message)
{
    return message->body.capacity + message->reply.capacity + crew_arena_size(&message->arena);
}

crew_message *crew_message_take(crew_message_pool *pool)
{
    crew_message *message = crew_list_take(&pool->spare);
    if (!message)
        return crew_message_new();
    pool->spare_bytes -= bytes_of(message);
    return message;
}

void crew_message_give(crew_message_pool *pool, crew_message *message)
{
    if (!message)
        return;
    crew_peer_release(message->peer);
    message->peer = NULL;
    crew_buffer_clear(&message->body);
    crew_buffer_clear(&message->reply);
    crew_arena_reset(&message->arena);
    size_t bytes = bytes_of(message);
    if (pool->spare.count >= pool->spare_max || pool->spare_bytes + bytes > CREW_SPARE_BYTES_MOST) {
        crew_message_free(message);
        return;
    }
    pool->spare_bytes += bytes;
    crew_message fresh = { .body = message->body, .reply = message->reply, .arena = message->arena };
    *message = fresh;
    crew_list_append(&pool->spare, message);
}

crew_limits crew_limits_resolve(const crew_limits *limits)
{
    crew_limits resolved = limits ? *limits : (crew_limits){ 0 };
    if (!resolved.message_bytes)
        resolved.message_bytes = (size_t)16 << 20;
    if (resolved.message_bytes > (size_t)1 << 30) /* sizes of values are 32 bits wide */
        resolved.message_bytes = (size_t)1 << 30;
    if (!resolved.string_bytes || resolved.string_bytes > resolved.message_bytes)
        resolved.string_bytes = resolved.message_bytes;
    if (!resolved.items)
        resolved.items = UINT32_MAX;
    if (!resolved.depth)
        resolved.depth = 128;
    if (resolved.depth > CREW_DEPTH_MAX)
        resolved.depth = CREW_DEPTH_MAX;
    if (!resolved.batch)
        resolved.batch = 1000;
    return resolved;
}

static int64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t crew_now_ms(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t crew_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

int64_t crew_unix_ms(void)
{
    return read_clock(CLOCK_REALTIME);
}

int64_t crew_travelled_deadline(int64_t unix_ms, int64_t left_ms, int64_t under_way_ms, bool *disagree)
{
    static const int64_t most = (int64_t)365 * 24 * 3600 * 1000, slack = 1000;
    int64_t left = unix_ms > 0 ? unix_ms - crew_unix_ms() : left_ms;
    *disagree = false;
    if (unix_ms > 0 && left_ms >= 0) {
        int64_t passed = left_ms - left; /* by the two clocks */
        *disagree = passed < -slack || (under_way_ms < most && passed > under_way_ms + slack);
        if (*disagree || left > left_ms)
            left = left_ms;
    }
    return crew_now_ms() + (left < most ? left : most);
}
