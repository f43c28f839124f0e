#include "transport/zmq_frame.h"

#include "core/msgpack.h"

#include <rpcrew/value.h>

#include <stdio.h>
#include <sys/random.h>

enum { READ_MOST = 512 }; /* bytes of a frame; others are passed over */

static const int64_t MILLISECONDS_MOST = (int64_t)1 << 53;

static char *put(char *at, crew_string text)
{
    memcpy(at, text.data, text.size);
    return at + text.size;
}

size_t zmq_frame_write(const struct zmq_frame *frame, char bytes[ZMQ_FRAME_MOST])
{
    char *at = put(bytes, crew_str(ZMQ_FRAME_MARK "\x82\xa4"
                                                  "left"));
    at += crew_msgpack_print_int(frame->left_ms, at);
    at = put(at, crew_str("\xa8"
                          "deadline"));
    at += crew_msgpack_print_int(frame->deadline_unix_ms, at);
    return (size_t)(at - bytes);
}

static int64_t number_of(const crew_value *map, const char *key, int64_t otherwise)
{
    int64_t number = otherwise;
    const crew_value *value = crew_value_get(map, key);
    bool has =
        value && crew_value_int(value, &number) == CREW_OK && number >= 0 && number <= MILLISECONDS_MOST;
    return has ? number : otherwise;
}

bool zmq_frame_read(crew_string bytes, crew_arena *arena, struct zmq_frame *frame)
{
    static const crew_limits limits = { .depth = 4, .items = 16 };
    const crew_value *map;
    size_t mark = sizeof ZMQ_FRAME_MARK - 1;
    if (bytes.size <= mark || bytes.size > READ_MOST || memcmp(bytes.data, ZMQ_FRAME_MARK, mark) != 0)
        return false;
    crew_string rest = { bytes.data + mark, bytes.size - mark };
    if (crew_msgpack_decode(rest, &limits, arena, &map, NULL) != CREW_OK ||
        crew_value_type(map) != CREW_TYPE_OBJECT)
        return false;
    *frame = (struct zmq_frame){ .left_ms = number_of(map, "left", -1),
                                 .deadline_unix_ms = number_of(map, "deadline", 0) };
    return true;
}

size_t zmq_frame_new_id(char id[ZMQ_FRAME_ID_MOST])
{
    uint64_t number = 0;
    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        number = (uint64_t)crew_unix_ms();
    return (size_t)snprintf(id, ZMQ_FRAME_ID_MOST, ZMQ_FRAME_ID "%016llx", (unsigned long long)number);
}
