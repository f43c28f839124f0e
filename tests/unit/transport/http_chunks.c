/* Chunked bodies by the letter, however they are cut into pieces. */
#include "support/test.h"

#include "transport/http_chunks.h"

#include <stdio.h>

enum { BODY_MOST = 8 << 10 };

/* What came of bytes that were given in pieces of so many; body gets the data, rest how many were not taken.
 */
static enum http_chunks_event read_in_pieces(crew_string bytes, size_t piece, char body[BODY_MOST],
                                             size_t *rest)
{
    struct http_chunks chunks = { 0 };
    enum http_chunks_event event = HTTP_CHUNKS_MORE;
    size_t at = 0, size = 0;
    while (at < bytes.size && (event == HTTP_CHUNKS_MORE || event == HTTP_CHUNKS_DATA)) {
        size_t taken;
        crew_string data = { NULL, 0 }, some = { bytes.data + at, bytes.size - at };
        if (some.size > piece)
            some.size = piece;
        event = http_chunks_read(&chunks, some, &taken, &data);
        assert_true(taken > 0 && taken <= some.size);
        at += taken;
        if (event == HTTP_CHUNKS_DATA) {
            assert_true(size + data.size < BODY_MOST);
            memcpy(body + size, data.data, data.size);
            size += data.size;
        }
    }
    assert_int_equal(chunks.why != NULL, event == HTTP_CHUNKS_BAD || event == HTTP_CHUNKS_LARGE);
    body[size] = '\0';
    *rest = bytes.size - at;
    return event;
}

static void expect_body(const char *text, const char *wanted, size_t rest_wanted)
{
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        char body[BODY_MOST];
        size_t rest;
        assert_int_equal(read_in_pieces(crew_str(text), piece, body, &rest), HTTP_CHUNKS_END);
        assert_string_equal(body, wanted);
        assert_int_equal(rest, rest_wanted);
    }
}

static void expect(const char *text, enum http_chunks_event wanted)
{
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        char body[BODY_MOST];
        size_t rest;
        assert_int_equal(read_in_pieces(crew_str(text), piece, body, &rest), wanted);
    }
}

static void a_body_is_what_its_chunks_have(void **state)
{
    (void)state;
    expect_body("0\r\n\r\n", "", 0);
    expect_body("3\r\nabc\r\n0\r\n\r\n", "abc", 0);
    expect_body("3\r\nabc\r\n00a\r\n0123456789\r\n000\r\n\r\n", "abc0123456789", 0);
    expect_body("B\r\nline\r\nlines\r\nb\r\nHello world\r\n0\r\n\r\n", "line\r\nlinesHello world", 0);
    expect_body("1;name;other=\"a value\"\r\na\r\n1 \t; x\r\nb\r\n1  \r\nc\r\n0;last\r\n\r\n", "abc", 0);
    expect_body("0000000000000000000001\r\na\r\n00000000000000000000\r\n\r\n", "a", 0);
    expect_body("1\r\na\r\n0\r\nA-Trailer: x\r\nAnother:\r\n\r\n", "a", 0);
    expect_body("1\r\na\r\n0\r\n\r\nPOST", "a", 4); /* what is behind it is the next message's */
}

static void what_ends_early_waits_for_more(void **state)
{
    (void)state;
    expect("3", HTTP_CHUNKS_MORE);
    expect("3\r\nabc\r", HTTP_CHUNKS_MORE);
    expect("3\r\nabc\r\n0\r\n", HTTP_CHUNKS_MORE);
    expect("3\r\nabc\r\n0\r\nA: b\r\n\r", HTTP_CHUNKS_MORE);
}

static void whatever_others_might_read_in_another_way_is_refused(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "\r\n",
        " 3\r\nabc\r\n",
        "g\r\n",
        "0x3\r\nabc\r\n",
        "+3\r\nabc\r\n",
        "-3\r\nabc\r\n",
        "3 3\r\nabc\r\n",
        "3\nabc\r\n",
        "3\r abc\r\n",
        "3;a\nb\r\nabc\r\n",
        "3\r\nabcd\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "0\r\n\n",
        "0\r\n\r \n",
        "0\r\nA: b\n\r\n",
        "0\r\nA: b\r\n and more\r\n\r\n",
        "0\r\nwords\r\n\r\n",
        "0\r\nmore words: x\r\n\r\n",
        "0\r\nA : b\r\n\r\n",
        "0\r\n: b\r\n\r\n",
        "1;a\x7f\r\na\r\n",
        "1000000000000000\r\n", /* of 2^60 bytes */
        "fffffffffffffffffffffff\r\n",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        expect(bodies[i], HTTP_CHUNKS_BAD);
}

static void lines_and_trailers_have_bounds(void **state)
{
    (void)state;
    char body[BODY_MOST], text[40000];
    size_t rest;
    (void)snprintf(text, sizeof text, "1;%01000d\r\na\r\n0\r\n\r\n", 0);
    assert_int_equal(read_in_pieces(crew_str(text), 4096, body, &rest), HTTP_CHUNKS_END);
    (void)snprintf(text, sizeof text, "1;%02000d\r\na\r\n0\r\n\r\n", 0);
    assert_int_equal(read_in_pieces(crew_str(text), 4096, body, &rest), HTTP_CHUNKS_LARGE);
    (void)snprintf(text, sizeof text, "0\r\nA: %016000d\r\n\r\n", 0);
    assert_int_equal(read_in_pieces(crew_str(text), 4096, body, &rest), HTTP_CHUNKS_END);
    (void)snprintf(text, sizeof text, "0\r\nA: %010000d\r\nB: %010000d\r\n\r\n", 0, 0);
    assert_int_equal(read_in_pieces(crew_str(text), 4096, body, &rest), HTTP_CHUNKS_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_body_is_what_its_chunks_have),
        cmocka_unit_test(what_ends_early_waits_for_more),
        cmocka_unit_test(whatever_others_might_read_in_another_way_is_refused),
        cmocka_unit_test(lines_and_trailers_have_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
