#include "support/test.h"

#include "transport/stream_framing.h"

enum { MOST = 1 << 16 };

/* What was found: the messages, each in <>, and a '!' for rubbish. */
struct seen {
    char text[2000];
    size_t size;
};

static void put(struct seen *seen, const char *open, crew_string bytes, const char *close)
{
    seen->size += (size_t)snprintf(seen->text + seen->size, sizeof seen->text - seen->size, "%s%.*s%s", open,
                                   (int)bytes.size, bytes.data, close);
    assert_true(seen->size < sizeof seen->text);
}

/* Reads bytes that come in pieces of so many. */
static void read_in_pieces(enum stream_kind kind, crew_string bytes, size_t piece, struct seen *seen)
{
    struct stream_framing framing = { .kind = kind };
    size_t taken = 0, come = 0;
    seen->size = 0;
    seen->text[0] = '\0';
    for (bool ended = false; !ended;) {
        come = come + piece < bytes.size ? come + piece : bytes.size;
        for (int last = 0; last < (come == bytes.size ? 2 : 1); last++) {
            struct stream_span span;
            ended = last == 1;
            for (;;) {
                crew_string rest = { bytes.data + taken, come - taken };
                enum stream_found what =
                    rest.size ? stream_framing_next(&framing, rest, ended, MOST, &span) : STREAM_MORE;
                if (what == STREAM_MORE) {
                    taken += rest.size ? span.body : 0;
                    break;
                }
                crew_string found = { rest.data + span.body, span.size };
                put(seen, what == STREAM_MESSAGE ? "<" : "!", what == STREAM_MESSAGE ? found : crew_str(""),
                    what == STREAM_MESSAGE ? ">" : "");
                taken += span.end;
                if (what == STREAM_RUBBISH) {
                    assert_non_null(framing.why);
                    return;
                }
            }
        }
    }
    if (taken < bytes.size)
        put(seen, "…", (crew_string){ bytes.data + taken, bytes.size - taken }, "");
}

/* However they are cut up, the same is found. */
static void check(enum stream_kind kind, crew_string bytes, const char *wanted)
{
    struct seen seen;
    for (size_t piece = 1; piece <= bytes.size; piece++) {
        read_in_pieces(kind, bytes, piece, &seen);
        if (strcmp(seen.text, wanted) != 0)
            fail_msg("'%.*s' in pieces of %zu: %s, wanted %s", (int)bytes.size, bytes.data, piece, seen.text,
                     wanted);
    }
}

#define CHECK(kind, bytes, wanted) check(kind, (crew_string){ bytes, sizeof bytes - 1 }, wanted)

static void lines(void **state)
{
    (void)state;
    CHECK(STREAM_LINES, "{\"a\":1}\n[2]\r\n\n \n{}", "<{\"a\":1}><[2]><{}>");
    CHECK(STREAM_LINES, "[]\nrubbish\n{\"a\":\n[]\n", "<[]><rubbish><{\"a\":><[]>");
    CHECK(STREAM_LINES, "Host: x\n{}\n", "!");
}

static void values(void **state)
{
    (void)state;
    CHECK(STREAM_CONCATENATED, "{\"a\":[1,{}]}[2] {\"b\":\"}\\\"]\"}",
          "<{\"a\":[1,{}]}><[2]><{\"b\":\"}\\\"]\"}>");
    CHECK(STREAM_CONCATENATED, "{\n \"a\": 1\n}\n{\n}", "<{\n \"a\": 1\n}><{\n}>");
    CHECK(STREAM_CONCATENATED, "{\"a\":\"never\n{}", "<{\"a\":\"never\n><{}>");
    CHECK(STREAM_CONCATENATED, "{}}{}", "<{}><}><{}>");
    CHECK(STREAM_CONCATENATED, "}{}", "!");
    CHECK(STREAM_CONCATENATED, "{\"a\":1", "<{\"a\":1>");
    CHECK(STREAM_CONCATENATED, "{}\"a\\\\\"{}", "<{}><\"a\\\\\"><{}>");
}

static void the_first_bytes_tell(void **state)
{
    (void)state;
    CHECK(STREAM_UNKNOWN, "{\"a\":1}{\"b\":2}\n", "<{\"a\":1}><{\"b\":2}>");
    CHECK(STREAM_UNKNOWN, "  \r\n[1]", "<[1]>");
    CHECK(STREAM_UNKNOWN, "\xEF\xBB\xBF{\"a\":1}\n", "<{\"a\":1}>");
    CHECK(STREAM_UNKNOWN, "content-length: 2\r\n\r\n{}", "<{}>");
    CHECK(STREAM_UNKNOWN, "\x94\x01\x01\xa1m\x90\x93\x02\xa1n\x90",
          "<\x94\x01\x01\xa1m\x90><\x93\x02\xa1n\x90>");
}

static void one_line_first_means_lines(void **state)
{
    (void)state;
    CHECK(STREAM_UNKNOWN, "{\"a\":1}\n{\"b\":\n{\"c\":3}\n", "<{\"a\":1}><{\"b\":><{\"c\":3}>");
    CHECK(STREAM_UNKNOWN, "{\"a\":1}\r\n{\"b\":\r\n{}\r\n", "<{\"a\":1}><{\"b\":><{}>");
    CHECK(STREAM_UNKNOWN, "{\n\"a\":1}\n{\"b\":\n2}\n", "<{\n\"a\":1}><{\"b\":\n2}>");
    CHECK(STREAM_UNKNOWN, "{\"a\":1} \n{\"b\":\n2}", "<{\"a\":1}><{\"b\":\n2}>");
}

static void lengths(void **state)
{
    (void)state;
    CHECK(STREAM_LENGTHS, "Content-Length: 2\r\n\r\n{}Content-Length: 3\r\nContent-Type: x\r\n\r\n[1]",
          "<{}><[1]>");
    CHECK(STREAM_LENGTHS, "Content-Length: 4\n\n\n{}\n\r\nCONTENT-LENGTH:0\n\n", "<\n{}\n><>");
    CHECK(STREAM_LENGTHS, "Content-Type: x\r\n\r\n{}", "!");
    CHECK(STREAM_LENGTHS, "Content-Length: 2", "!");
}

static void rubbish(const char *text, enum stream_kind kind)
{
    struct stream_framing framing = { .kind = kind };
    struct stream_span span;
    assert_int_equal(stream_framing_next(&framing, crew_str(text), false, MOST, &span), STREAM_RUBBISH);
    assert_non_null(framing.why);
}

static void what_is_none_is_told_at_once(void **state)
{
    (void)state;
    rubbish("POST / HTTP/1.1\r\n", STREAM_UNKNOWN);
    rubbish("G", STREAM_UNKNOWN);
    rubbish("contempt", STREAM_UNKNOWN);
    rubbish("\x01", STREAM_UNKNOWN);
    rubbish("Content-Length: 1\r\nContent-Length: 2\r\n\r\n", STREAM_LENGTHS);
    rubbish("Content-Length: -1\r\n\r\n", STREAM_LENGTHS);
    rubbish("Content-Length: 99999999999999999999\r\n\r\n", STREAM_LENGTHS);
    rubbish("Content-Length: 65537\r\n\r\n", STREAM_LENGTHS);
    rubbish("no colon\r\n\r\n", STREAM_LENGTHS);
    rubbish("\xc1", STREAM_OBJECTS);
    rubbish("\xdd\xff\xff\xff\xff", STREAM_OBJECTS);
    rubbish("\xdb\x7f\xff\xff\xff", STREAM_OBJECTS);
}

static void nothing_grows_beyond_its_bound(void **state)
{
    (void)state;
    char *much = malloc(MOST + 2);
    static const enum stream_kind kinds[] = { STREAM_LINES, STREAM_CONCATENATED, STREAM_UNKNOWN };
    memset(much, '[', MOST + 2);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct stream_framing framing = { .kind = kinds[i] };
        struct stream_span span;
        crew_string bytes = { much, MOST };
        assert_int_equal(stream_framing_next(&framing, bytes, false, MOST, &span), STREAM_MORE);
        bytes.size = MOST + 1;
        assert_int_equal(stream_framing_next(&framing, bytes, false, MOST, &span), STREAM_RUBBISH);
    }
    memset(much, 'a', MOST + 2);
    memcpy(much, "content-", 8);
    struct stream_framing framing = { .kind = STREAM_UNKNOWN };
    struct stream_span span;
    assert_int_equal(stream_framing_next(&framing, (crew_string){ much, 9000 }, false, MOST, &span),
                     STREAM_RUBBISH);
    free(much);
}

/* Every first byte of MessagePack: the object ends where it says, whatever is behind. */
static void objects_of_every_kind(void **state)
{
    (void)state;
    for (unsigned first = 0; first < 256; first++) {
        unsigned char bytes[64] = { (unsigned char)first }; /* lengths of 0, or items of 0 */
        struct stream_framing framing = { .kind = STREAM_OBJECTS };
        struct stream_span span;
        if (first == 0xc1)
            continue;
        assert_int_equal(
            stream_framing_next(&framing, (crew_string){ (char *)bytes, sizeof bytes }, false, MOST, &span),
            STREAM_MESSAGE);
        size_t size = 1;
        if (first >= 0x80 && first < 0x90)
            size += 2 * (first & 0x0f);
        else if (first >= 0x90 && first < 0xa0)
            size += first & 0x0f;
        else if (first >= 0xa0 && first < 0xc0)
            size += first & 0x1f;
        else if (first >= 0xc4 && first < 0xe0) {
            static const size_t more[] = { 1, 2, 4, 2, 3, 5, 4,  8, 1, 2, 4, 8, 1, 2,
                                           4, 8, 2, 3, 5, 9, 17, 1, 2, 4, 2, 4, 2, 4 };
            size += more[first - 0xc4];
        }
        assert_int_equal(span.end, size);
    }
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    static const enum stream_kind kinds[] = { STREAM_UNKNOWN, STREAM_LINES, STREAM_CONCATENATED,
                                              STREAM_LENGTHS, STREAM_OBJECTS };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        bool text = kinds[i] != STREAM_OBJECTS;
        crew_string body = crew_str(text ? "{\"a\":[1,2]}" : "\x92\x01\x02");
        crew_buffer out = { 0 };
        for (int n = 0; n < 2; n++)
            stream_framing_write(kinds[i], text ? "application/json" : "application/msgpack", body, &out);
        struct seen seen, wanted = { .size = 0 };
        put(&wanted, "<", body, ">");
        put(&wanted, "<", body, ">");
        for (size_t piece = 1; piece <= out.size; piece++) {
            read_in_pieces(kinds[i], crew_buffer_string(&out), piece, &seen);
            assert_string_equal(seen.text, wanted.text);
        }
        crew_buffer_fini(&out);
    }
    crew_buffer out = { 0 };
    struct stream_framing framing = { .kind = STREAM_LENGTHS };
    struct stream_span span;
    stream_framing_write(STREAM_LENGTHS, "application/msgpack", crew_str("\x90"), &out);
    assert_int_equal(stream_framing_next(&framing, crew_buffer_string(&out), false, MOST, &span),
                     STREAM_MESSAGE);
    assert_string_equal(stream_framing_type(&framing), "application/msgpack");
    crew_buffer_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines),
        cmocka_unit_test(values),
        cmocka_unit_test(the_first_bytes_tell),
        cmocka_unit_test(one_line_first_means_lines),
        cmocka_unit_test(lengths),
        cmocka_unit_test(what_is_none_is_told_at_once),
        cmocka_unit_test(nothing_grows_beyond_its_bound),
        cmocka_unit_test(objects_of_every_kind),
        cmocka_unit_test(what_is_written_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
