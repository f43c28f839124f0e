/* The one file that turns MessagePack into values and back, by msgpack-c's parser and packer.
 *
 * Not by its unpacker: that one refuses what is 33 levels deep, and reserves memory by what a header says.
 * The parser underneath is a template, to be given callbacks; ours build values in the arena. Each item that
 * a container announces takes a byte at least, so what all of them announce together is bounded by the bytes
 * there are, and so is the memory. */
#include "core/msgpack.h"

#include "core/utf8.h"
#include "core/value.h"

#include <rpcrew/impl/message.h>

#include <msgpack/pack.h>
#include <msgpack/unpack.h>
#include <stdio.h>

/* ---- reading ---- */

struct reader {
    crew_arena *arena;
    const crew_limits *limits;
    size_t items_left;  /* that containers may still announce */
    const char *bottom; /* of the parser's stack of containers */
    struct crew_msgpack_fault *fault;
    crew_status status; /* why a callback failed */
    const char *words;
};

static int fail(struct reader *r, crew_status status, const char *words)
{
    r->status = status;
    r->words = words;
    return MSGPACK_UNPACK_PARSE_ERROR;
}

/* Something is well-formed and cannot be carried: without somebody to tell it to, a failure. */
static int cannot_carry(struct reader *r, crew_status status, const char *words, crew_value *out);

/* The names of what follows are the template's. */
#define msgpack_unpack_struct(name)     struct crew_parser##name
#define msgpack_unpack_func(type, name) static type crew_parser##name
#define msgpack_unpack_callback(name)   on##name
#define msgpack_unpack_object           crew_value
#define msgpack_unpack_user             struct reader *
#define MSGPACK_EMBED_STACK_SIZE        CREW_DEPTH_MAX

static crew_value on_root(struct reader **user)
{
    (void)user;
    return (crew_value){ .type = CREW_TYPE_NULL };
}

static int on_natural(crew_value *out, uint64_t number)
{
    *out = crew_make_uint(number);
    return 0;
}

static int on_integer(crew_value *out, int64_t number)
{
    *out = crew_make_int(number);
    return 0;
}

static int on_number(crew_value *out, double number)
{
    *out = crew_make_double(number);
    return 0;
}

#define SCALAR(name, c_type, function)                                          \
    static int name(struct reader *const *user, c_type number, crew_value *out) \
    {                                                                           \
        (void)user;                                                             \
        return function(out, number);                                           \
    }
SCALAR(on_uint8, uint8_t, on_natural)
SCALAR(on_uint16, uint16_t, on_natural)
SCALAR(on_uint32, uint32_t, on_natural)
SCALAR(on_uint64, uint64_t, on_natural)
SCALAR(on_int8, int8_t, on_integer)
SCALAR(on_int16, int16_t, on_integer)
SCALAR(on_int32, int32_t, on_integer)
SCALAR(on_int64, int64_t, on_integer)
SCALAR(on_float, float, on_number)
SCALAR(on_double, double, on_number)

static int on_nil(struct reader *const *user, crew_value *out)
{
    (void)user;
    *out = (crew_value){ .type = CREW_TYPE_NULL };
    return 0;
}

static int on_true(struct reader *const *user, crew_value *out)
{
    (void)user;
    *out = crew_make_bool(true);
    return 0;
}

static int on_false(struct reader *const *user, crew_value *out)
{
    (void)user;
    *out = crew_make_bool(false);
    return 0;
}

static const char long_string[] = "a string of more bytes than are allowed";

/* Room for a text and a NUL behind it, for those who read it as a C string; NULL without memory. */
static char *room_for(struct reader *r, size_t size)
{
    static char nothing[1];
    if (!size)
        return nothing;
    char *place = crew_arena_alloc(r->arena, size + 1);
    if (!place)
        (void)fail(r, CREW_NO_MEMORY, "no memory");
    else
        place[size] = '\0';
    return place;
}

static int on_str(struct reader *const *user, const char *base, const char *at, unsigned size,
                  crew_value *out)
{
    (void)base;
    if (size > (*user)->limits->string_bytes)
        return cannot_carry(*user, CREW_LIMIT, long_string, out);
    char *copy = room_for(*user, size);
    if (!copy)
        return MSGPACK_UNPACK_PARSE_ERROR;
    if (size && !crew_utf8_copy(copy, (crew_string){ at, size }))
        return cannot_carry(*user, CREW_MALFORMED, "a str that is not UTF-8", out);
    *out = crew_make_text(CREW_TYPE_STRING, (crew_string){ copy, size });
    return 0;
}

static int on_bytes(struct reader *r, crew_type type, const char *at, size_t size, crew_value *out)
{
    if (size > r->limits->string_bytes)
        return cannot_carry(r, CREW_LIMIT, long_string, out);
    char *copy = room_for(r, size);
    if (!copy)
        return MSGPACK_UNPACK_PARSE_ERROR;
    if (size)
        memcpy(copy, at, size);
    *out = crew_make_text(type, (crew_string){ copy, size });
    return 0;
}

static int on_bin(struct reader *const *user, const char *base, const char *at, unsigned size,
                  crew_value *out)
{
    (void)base;
    return on_bytes(*user, CREW_TYPE_BYTES, at, size, out);
}

/* at begins with the type. */
static int on_ext(struct reader *const *user, const char *base, const char *at, unsigned size,
                  crew_value *out)
{
    (void)base;
    if (!size) /* 2^32 - 1 bytes and the type, wrapped around */
        return fail(*user, CREW_LIMIT, "an ext of 4 GiB");
    int failed = on_bytes(*user, CREW_TYPE_EXT, at + 1, size - 1, out);
    if (!failed && out->type == CREW_TYPE_EXT)
        out->ext_type = (int8_t)at[0];
    return failed;
}

/* How deep a container is, which its place in the parser's stack tells. */
static size_t depth_of(const struct reader *r, const crew_value *place);

/* Opens a container of count items, each of so many values, at its place in the parser's stack. One that
 * cannot be carried has no room for items, and drops them as they come. */
static int announce(struct reader *r, crew_value *place, size_t count, size_t values)
{
    if (count * values > r->items_left)
        return fail(r, CREW_MALFORMED, "a container of more items than there are bytes");
    r->items_left -= count * values;
    place->items = NULL;
    int failed = 0;
    if (depth_of(r, place) > r->limits->depth)
        failed = cannot_carry(r, CREW_LIMIT, "nested too deep", NULL);
    else if (count > r->limits->items)
        failed = cannot_carry(r, CREW_LIMIT, "a container of more items than are allowed", NULL);
    else if (count && !(place->items = crew_arena_alloc(r->arena, count * values * sizeof(crew_value))))
        failed = fail(r, CREW_NO_MEMORY, "no memory");
    return failed;
}

/* The items are counted as they come. */
static int on_array(struct reader *const *user, unsigned count, crew_value *out)
{
    *out = (crew_value){ .type = CREW_TYPE_ARRAY };
    return announce(*user, out, count, 1);
}

static int on_array_item(struct reader *const *user, crew_value *array, crew_value item)
{
    (void)user;
    if (array->items)
        array->items[array->size++] = item;
    return 0;
}

static int on_map(struct reader *const *user, unsigned count, crew_value *out)
{
    *out = (crew_value){ .type = CREW_TYPE_OBJECT };
    return announce(*user, out, count, 2);
}

static int on_map_item(struct reader *const *user, crew_value *map, crew_value key, crew_value value)
{
    (void)user;
    if (map->members)
        map->members[map->size++] = (struct crew_member){ key, value };
    return 0;
}

#include <msgpack/unpack_define.h>
/* in this order */
#include <msgpack/unpack_template.h>

static size_t depth_of(const struct reader *r, const crew_value *place)
{
    return (size_t)((const char *)place - r->bottom) / sizeof(struct crew_parser_stack) + 1;
}

static int cannot_carry(struct reader *r, crew_status status, const char *words, crew_value *out)
{
    if (!r->fault)
        return fail(r, status, words);
    if (out)
        *out = (crew_value){ .type = CREW_TYPE_NULL };
    if (r->fault->status != CREW_OK)
        return 0;
    r->fault->status = status;
    r->fault->field = ((const crew_value *)(const void *)r->bottom)->size;
    (void)snprintf(r->fault->words, sizeof r->fault->words, "%s", words);
    return 0;
}

crew_status crew_msgpack_read(crew_string bytes, size_t *at, const crew_limits *limits, crew_arena *arena,
                              struct crew_msgpack_fault *fault, const crew_value **value, crew_error *why)
{
    struct crew_parser_context parser;
    struct reader reader = { .arena = arena,
                             .limits = limits,
                             .items_left = bytes.size - *at,
                             .bottom = (const char *)&parser.stack[0].obj,
                             .fault = fault,
                             .status = CREW_MALFORMED,
                             .words = "a byte that begins nothing" };
    size_t end = *at;
    *value = NULL;
    if (bytes.size > limits->message_bytes)
        return crew_error_set(why, CREW_LIMIT, "more than %zu bytes", limits->message_bytes);
    if (!bytes.size) /* perhaps at NULL, to which nothing may be added */
        return crew_error_set(why, CREW_MALFORMED, "cut short after 0 bytes");
    parser.user = &reader;
    crew_parser_init(&parser);
    parser.stack[0].obj = (crew_value){ .type = CREW_TYPE_NULL };
    int result = crew_parser_execute(&parser, bytes.data, bytes.size, &end);
    /* What is not read to its end is still at the bottom of the stack. */
    bool whole = result > 0, begun = parser.stack[0].obj.type == CREW_TYPE_ARRAY;
    if (whole || begun)
        *value = crew_value_in(arena, whole ? crew_parser_data(&parser) : parser.stack[0].obj);
    if ((whole || begun) && !*value)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    if (result == 0)
        return crew_error_set(why, CREW_MALFORMED, "cut short after %zu bytes", bytes.size);
    if (result == MSGPACK_UNPACK_NOMEM_ERROR) /* the parser's word for a full stack */
        return crew_error_set(why, CREW_LIMIT, "nested too deep, at offset %zu", end);
    if (result < 0)
        return crew_error_set(why, reader.status, "%s, at offset %zu", reader.words, end);
    *at = end;
    return CREW_OK;
}

crew_status crew_msgpack_decode(crew_string bytes, const crew_limits *limits, crew_arena *arena,
                                const crew_value **value, crew_error *why)
{
    const crew_limits resolved = crew_limits_resolve(limits);
    const crew_value *read = NULL;
    size_t at = 0;
    crew_status status = crew_msgpack_read(bytes, &at, &resolved, arena, NULL, &read, why);
    if (status != CREW_OK)
        return status;
    if (at < bytes.size)
        return crew_error_set(why, CREW_MALFORMED, "%zu bytes behind the object", bytes.size - at);
    *value = read;
    return CREW_OK;
}

/* ---- writing ---- */

/* Most pieces are a few bytes, and there is room for them. */
static int append(void *data, const char *bytes, size_t size)
{
    crew_buffer *out = data;
    if (size > out->capacity - out->size || out->failed) {
        crew_buffer_append(out, bytes, size);
        return 0; /* the buffer remembers */
    }
    if (size) /* what is empty may be at NULL */
        memcpy(out->data + out->size, bytes, size);
    out->size += size;
    return 0;
}

static msgpack_packer packer(crew_buffer *out)
{
    return (msgpack_packer){ .data = out, .callback = append };
}

static crew_status write_value(msgpack_packer *p, const crew_value *value, unsigned depth);

static crew_status write_string(msgpack_packer *p, crew_string text)
{
    crew_buffer *out = p->data;
    (void)msgpack_pack_str(p, text.size);
    if (!text.size || out->failed)
        return CREW_OK;
    char *place = out->data + out->size;
    if (text.size <= out->capacity - out->size) /* as most times */
        out->size += text.size;
    else
        place = crew_buffer_extend(out, text.size);
    return !place || crew_utf8_copy(place, text) ? CREW_OK : CREW_MALFORMED;
}

static crew_status write_container(msgpack_packer *p, const crew_value *value, unsigned depth)
{
    crew_status status = depth < CREW_DEPTH_MAX ? CREW_OK : CREW_LIMIT;
    if (value->type == CREW_TYPE_ARRAY) {
        (void)msgpack_pack_array(p, value->size);
        for (size_t i = 0; i < value->size && status == CREW_OK; i++)
            status = write_value(p, &value->items[i], depth + 1);
    } else {
        (void)msgpack_pack_map(p, value->size);
        for (size_t i = 0; i < value->size && status == CREW_OK; i++) {
            status = write_value(p, &value->members[i].key, depth + 1);
            if (status == CREW_OK)
                status = write_value(p, &value->members[i].value, depth + 1);
        }
    }
    return status;
}

static crew_status write_value(msgpack_packer *p, const crew_value *value, unsigned depth)
{
    switch (crew_value_type(value)) {
    case CREW_TYPE_BOOL: (void)(value->boolean ? msgpack_pack_true(p) : msgpack_pack_false(p)); break;
    case CREW_TYPE_INT: (void)msgpack_pack_int64(p, value->integer); break;
    case CREW_TYPE_UINT: (void)msgpack_pack_uint64(p, value->natural); break;
    case CREW_TYPE_DOUBLE: (void)msgpack_pack_double(p, value->number); break;
    case CREW_TYPE_STRING: return write_string(p, crew_text_of(value));
    case CREW_TYPE_BYTES:
        (void)msgpack_pack_bin(p, value->size);
        (void)msgpack_pack_bin_body(p, value->bytes, value->size);
        break;
    case CREW_TYPE_EXT:
        (void)msgpack_pack_ext(p, value->size, value->ext_type);
        (void)msgpack_pack_ext_body(p, value->bytes, value->size);
        break;
    case CREW_TYPE_ARRAY:
    case CREW_TYPE_OBJECT: return write_container(p, value, depth);
    default: (void)msgpack_pack_nil(p); break;
    }
    return CREW_OK;
}

crew_status crew_msgpack_write(const crew_value *value, crew_buffer *out)
{
    msgpack_packer p = packer(out);
    return write_value(&p, value, 0);
}

void crew_msgpack_write_array(size_t count, crew_buffer *out)
{
    msgpack_packer p = packer(out);
    (void)msgpack_pack_array(&p, count);
}

crew_status crew_msgpack_write_string(crew_string text, crew_buffer *out)
{
    crew_value value = crew_make_text(CREW_TYPE_STRING, text);
    return crew_msgpack_write(&value, out);
}

void crew_msgpack_write_int(int64_t number, crew_buffer *out)
{
    msgpack_packer p = packer(out);
    (void)msgpack_pack_int64(&p, number);
}

static int print(void *end, const char *bytes, size_t size)
{
    char **at = end;
    memcpy(*at, bytes, size);
    *at += size;
    return 0;
}

size_t crew_msgpack_print_int(int64_t number, char bytes[CREW_MSGPACK_INT_MOST])
{
    char *end = bytes;
    msgpack_packer p = { .data = &end, .callback = print };
    (void)msgpack_pack_int64(&p, number);
    return (size_t)(end - bytes);
}

void crew_msgpack_write_nil(crew_buffer *out)
{
    msgpack_packer p = packer(out);
    (void)msgpack_pack_nil(&p);
}

crew_status crew_msgpack_encode(const crew_value *value, crew_bytes *bytes)
{
    crew_buffer out = { 0 };
    return crew_buffer_give(&out, crew_msgpack_write(value, &out), bytes);
}
