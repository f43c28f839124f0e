#include "support/golden.h"

#include "core/msgpack.h"

#include <rpcrew/impl/message.h>

static int hex(char c)
{
    const char *digits = "0123456789abcdef", *at = strchr(digits, c | (c > '9' ? 32 : 0));
    assert_true(c && at);
    return (int)(at - digits);
}

/* One byte of a line, perhaps written \xHH. */
static char take_byte(const char **at)
{
    const char *c = *at;
    bool escaped = c[0] == '\\' && c[1] == 'x';
    *at += escaped ? 4 : 1;
    if (!escaped)
        return c[0];
    return (char)(hex(c[2]) << 4 | hex(c[3]));
}

/* The line's bytes: \xHH is one, \{N} is the next one N times. */
static crew_string unescape(const char *at, crew_arena *arena)
{
    crew_buffer out = { 0 };
    while (*at) {
        unsigned long times = 1;
        if (at[0] == '\\' && at[1] == '{') {
            char *end;
            times = strtoul(at + 2, &end, 10);
            assert_int_equal(*end, '}');
            at = end + 1;
        }
        char byte = take_byte(&at);
        char *place = crew_buffer_extend(&out, times);
        assert_non_null(place);
        memset(place, byte, times);
    }
    return crew_buffer_move(&out, arena);
}

static void finish(struct golden_case *one, bool complete, golden_visitor *visit, void *context,
                   size_t *count)
{
    if (one->line && !complete)
        fail_msg("line %u has no answer", one->line);
    if (complete) {
        visit(context, one);
        ++*count;
    }
    *one = (struct golden_case){ 0 };
}

size_t golden_each(const char *path, golden_visitor *visit, void *context)
{
    char *line = NULL;
    size_t room = 0, count = 0;
    bool complete = false; /* its answer has been read */
    crew_arena arena = { 0 };
    struct golden_case one = { 0 };
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (unsigned number = 1; getline(&line, &room, file) > 0; number++) {
        line[strcspn(line, "\n")] = '\0';
        const char *text = strlen(line) > 3 ? line + 3 : "";
        if (strncmp(line, "->", 2) == 0) {
            finish(&one, complete, visit, context, &count);
            crew_arena_reset(&arena);
            complete = false;
            one.line = number;
            one.request = unescape(text, &arena);
        } else if (strncmp(line, "<-", 2) == 0 || strncmp(line, "<=", 2) == 0) {
            assert_true(!complete || (!one.exact && line[1] == '-')); /* exact ones stand alone */
            complete = true;
            one.exact = line[1] == '=';
            assert_true(one.reply_count < GOLDEN_REPLIES_MOST);
            if (*text)
                one.replies[one.reply_count++] = unescape(text, &arena);
        } else {
            assert_true(*line == '#' || *line == '\0');
        }
    }
    finish(&one, complete, visit, context, &count);
    (void)fclose(file);
    free(line);
    crew_arena_fini(&arena);
    return count;
}

/* A MessagePack message as what it would be in JSON, where whole doubles are integers. */
static const crew_value *through_json(const crew_value *value, crew_arena *arena)
{
    return parse_json(arena, json_of(arena, value));
}

/* Cuts the next message off the answer; NULL if there is none that can be read. */
static const crew_value *next_message(const crew_protocol *protocol, crew_string *answer, crew_arena *arena)
{
    const crew_limits limits = crew_limits_resolve(NULL);
    const crew_value *value = NULL;
    crew_error why;
    size_t size = 0;
    if (strcmp(protocol->name, "msgpack") == 0) {
        if (crew_msgpack_read(*answer, &size, &limits, arena, NULL, &value, &why) != CREW_OK)
            return NULL;
        value = through_json(value, arena);
    } else {
        size = answer->size;
        if (crew_json_decode(*answer, NULL, arena, &value, &why) != CREW_OK)
            return NULL;
    }
    answer->data += size;
    answer->size -= size;
    return value;
}

/* No reply of JSON-RPC 2.0 has both, and a class of replies does not forbid what it does not name. */
static bool says_both(const crew_value *reply)
{
    for (size_t i = 0; crew_value_type(reply) == CREW_TYPE_ARRAY && i < crew_value_count(reply); i++)
        if (says_both(crew_value_at(reply, i)))
            return true;
    return crew_value_get(reply, "jsonrpc") && crew_value_get(reply, "result") &&
           crew_value_get(reply, "error");
}

static bool is_right(const struct golden_case *one, const crew_protocol *protocol, crew_string answer,
                     crew_arena *arena)
{
    if (one->exact)
        return crew_string_equal(one->replies[0], answer);
    for (size_t i = 0; i < one->reply_count; i++) {
        const crew_value *got = answer.size ? next_message(protocol, &answer, arena) : NULL;
        if (!got || !json_covers(parse_json(arena, one->replies[i].data), got) || says_both(got))
            return false;
    }
    return answer.size == 0;
}

static void show(const char *label, crew_string bytes)
{
    enum { ENOUGH = 600 };
    print_error("  %s", label);
    for (size_t i = 0; i < bytes.size && i < ENOUGH; i++) {
        unsigned char c = (unsigned char)bytes.data[i];
        print_error(c >= 0x20 && c < 0x7f ? "%c" : "\\x%02x", c);
    }
    print_error("%s\n", bytes.size > ENOUGH ? "…" : "");
}

bool golden_is_right(const struct golden_case *one, const crew_protocol *protocol, crew_string answer)
{
    crew_arena arena = { 0 };
    bool right = is_right(one, protocol, answer, &arena);
    crew_arena_fini(&arena);
    if (right)
        return true;
    print_error("line %u:\n", one->line);
    show("-> ", one->request);
    for (size_t i = 0; i < one->reply_count; i++)
        show(one->exact ? "wanted exactly " : "wanted ", one->replies[i]);
    show("got ", answer);
    return false;
}
