/* rpcrew/protocol.h: calls and replies of all protocols, without anything around them. */
#include "support/test.h"

#include <rpcrew/protocol.h>

static crew_arena *arena;

static int setup(void **state)
{
    (void)state;
    assert_ok(crew_arena_new(&arena));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_arena_free(arena);
    return 0;
}

static const crew_value *pack(const char *format, int number)
{
    const crew_value *value;
    assert_ok(crew_pack(arena, &value, format, number));
    return value;
}

static crew_string string_of(const crew_bytes *bytes)
{
    return (crew_string){ bytes->data, bytes->size };
}

static void assert_text(const crew_bytes *bytes, const char *text)
{
    assert_int_equal(bytes->size, strlen(text));
    assert_memory_equal(bytes->data, text, bytes->size);
}

static void calls_are_written_alone_and_as_a_batch(void **state)
{
    (void)state;
    const crew_protocol *protocol = crew_protocol_find("jsonrpc");
    const crew_outgoing calls[] = { { "add", pack("[i]", 1), 7 }, { "note", NULL, 0 } };
    crew_bytes message = { 0 };
    assert_ok(crew_write_calls(protocol, calls, 1, &message));
    assert_text(&message, "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1],\"id\":7}");
    crew_bytes_free(&message);
    assert_ok(crew_write_calls(protocol, calls, 2, &message));
    assert_text(&message, "[{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1],\"id\":7},"
                          "{\"jsonrpc\":\"2.0\",\"method\":\"note\"}]");
    crew_bytes_free(&message);
    assert_ok(crew_write_calls(crew_protocol_find("jsonrpc1"), calls + 1, 1, &message));
    assert_text(&message, "{\"method\":\"note\",\"params\":[],\"id\":null}");
    crew_bytes_free(&message);
    assert_status(crew_write_calls(protocol, calls, 0, &message), CREW_BAD_ARGUMENT);
    const crew_outgoing wrong = { "add", pack("i", 1), 1 };
    assert_status(crew_write_calls(protocol, &wrong, 1, &message), CREW_BAD_ARGUMENT);
    assert_null(message.data);
}

static void replies_find_their_calls(void **state)
{
    (void)state;
    const crew_protocol *protocol = crew_protocol_find("jsonrpc");
    crew_incoming_replies replies;
    crew_error why;
    int64_t number;
    assert_ok(crew_read_replies(
        protocol,
        crew_str("[{\"jsonrpc\":\"2.0\",\"result\":19,\"id\":2},"
                 "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":7,\"message\":\"no\",\"data\":1},\"id\":1},"
                 "{\"jsonrpc\":\"2.0\",\"id\":3}]"),
        NULL, arena, &replies, &why));
    assert_int_equal(replies.count, 3);
    const crew_incoming_reply *reply = crew_reply_to(&replies, 2);
    assert_int_equal(reply->status, CREW_OK);
    assert_ok(crew_value_int(reply->result, &number));
    assert_int_equal(number, 19);
    reply = crew_reply_to(&replies, 1);
    assert_int_equal(reply->status, CREW_REMOTE_ERROR);
    assert_int_equal(reply->code, 7);
    assert_true(crew_string_equal(reply->message, crew_str("no")));
    assert_non_null(reply->data);
    reply = crew_reply_to(&replies, 3);
    assert_int_equal(reply->status, CREW_BAD_REPLY);
    assert_non_null(reply->reason);
    assert_null(crew_reply_to(&replies, 4));
    assert_null(crew_reply_to(&replies, 0));
    /* about a message that its peer could not read */
    assert_ok(crew_read_replies(
        protocol,
        crew_str("{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,\"message\":\"Parse error\"},\"id\":null}"),
        NULL, arena, &replies, &why));
    assert_int_equal(crew_reply_to(&replies, 1)->code, -32700);
    assert_int_equal(crew_reply_to(&replies, 2)->code, -32700);
}

static void what_is_no_reply_is_told_in_words(void **state)
{
    (void)state;
    crew_incoming_replies replies;
    crew_error why = { .status = CREW_OK };
    const crew_limits limits = { .message_bytes = 10 };
    const crew_protocol *protocol = crew_protocol_find("jsonrpc");
    assert_status(crew_read_replies(protocol, crew_str(""), NULL, arena, &replies, &why), CREW_MALFORMED);
    assert_status(crew_read_replies(protocol, crew_str("{"), NULL, arena, &replies, NULL), CREW_MALFORMED);
    assert_status(
        crew_read_replies(protocol, crew_str("{\"jsonrpc\":\"2.0\"}"), &limits, arena, &replies, &why),
        CREW_LIMIT);
    assert_true(*why.message);
}

static void a_service_reads_calls_and_answers_them(void **state)
{
    (void)state;
    crew_incoming_calls calls;
    crew_bytes answer = { 0 };
    assert_ok(
        crew_read_calls(crew_protocol_find("jsonrpc"),
                        crew_str("[{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1],\"id\":\"a\"},"
                                 "{\"jsonrpc\":\"2.0\",\"method\":\"note\"},1,"
                                 "{\"jsonrpc\":\"2.0\",\"method\":\"fail\",\"id\":2}]"),
                        NULL, arena, &calls));
    assert_int_equal(calls.count, 4);
    assert_true(calls.batch);
    assert_true(crew_string_equal(calls.items[0].method, crew_str("add")));
    assert_int_equal(crew_value_count(calls.items[0].params), 1);
    assert_true(calls.items[1].one_way);
    assert_int_equal(calls.items[2].code, CREW_CODE_INVALID_REQUEST);
    const crew_outgoing_reply replies[] = { { .value = pack("i", 2) },
                                            { .value = pack("i", 3) },
                                            { .value = pack("i", 4) },
                                            { .code = 7, .message = "no", .value = pack("[i]", 1) } };
    assert_ok(crew_write_replies(&calls, replies, CREW_ERRORS_PAIR, &answer));
    crew_incoming_replies back;
    assert_ok(crew_read_replies(crew_protocol_find("jsonrpc"), string_of(&answer), NULL, arena, &back, NULL));
    assert_int_equal(back.count, 3);
    assert_non_null(strstr(answer.data, "{\"jsonrpc\":\"2.0\",\"result\":2,\"id\":\"a\"}"));
    assert_non_null(strstr(answer.data, "\"code\":-32600"));
    assert_non_null(strstr(answer.data, "{\"code\":7,\"message\":\"no\",\"data\":[1]},\"id\":2}"));
    crew_bytes_free(&answer);
}

static void what_needs_no_answer_gets_none_and_rubbish_an_error(void **state)
{
    (void)state;
    crew_incoming_calls calls;
    crew_bytes answer = { 0 };
    const crew_protocol *protocol = crew_protocol_find("jsonrpc");
    assert_ok(crew_read_calls(protocol, crew_str("[{\"jsonrpc\":\"2.0\",\"method\":\"note\"}]"), NULL, arena,
                              &calls));
    assert_ok(crew_write_replies(&calls, NULL, CREW_ERRORS_PAIR, &answer));
    assert_null(answer.data);
    assert_ok(crew_read_calls(protocol, crew_str("{bad"), NULL, arena, &calls));
    assert_int_equal(calls.count, 1);
    assert_int_equal(calls.items[0].code, CREW_CODE_PARSE_ERROR);
    assert_ok(crew_write_replies(&calls, NULL, CREW_ERRORS_PAIR, &answer));
    assert_non_null(strstr(answer.data, "\"code\":-32700"));
    crew_bytes_free(&answer);
}

static void a_result_that_cannot_be_carried_is_an_error(void **state)
{
    (void)state;
    crew_incoming_calls calls;
    crew_bytes answer = { 0 };
    const crew_value *nan;
    assert_ok(crew_pack(arena, &nan, "f", 0.0 / 0.0));
    assert_ok(crew_read_calls(crew_protocol_find("jsonrpc"),
                              crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":1}"), NULL, arena,
                              &calls));
    const crew_outgoing_reply reply = { .value = nan };
    assert_ok(crew_write_replies(&calls, &reply, CREW_ERRORS_PAIR, &answer));
    assert_non_null(strstr(answer.data, "\"code\":-32603"));
    crew_bytes_free(&answer);
}

static void all_protocols_go_there_and_back(void **state)
{
    (void)state;
    for (size_t i = 0; crew_protocol_at(i); i++) {
        const crew_protocol *protocol = crew_protocol_at(i);
        const crew_outgoing call = { "add", pack("[i]", 1), 5 };
        crew_bytes message = { 0 }, answer = { 0 };
        crew_incoming_calls calls;
        crew_incoming_replies replies;
        assert_ok(crew_write_calls(protocol, &call, 1, &message));
        assert_ok(crew_read_calls(protocol, string_of(&message), NULL, arena, &calls));
        assert_int_equal(calls.count, 1);
        assert_int_equal(calls.items[0].code, 0);
        const crew_outgoing_reply reply = { .code = 9, .message = "no" };
        assert_ok(crew_write_replies(&calls, &reply, CREW_ERRORS_PAIR, &answer));
        assert_ok(crew_read_replies(protocol, string_of(&answer), NULL, arena, &replies, NULL));
        assert_int_equal(crew_reply_to(&replies, 5)->status, CREW_REMOTE_ERROR);
        assert_int_equal(crew_reply_to(&replies, 5)->code, 9);
        assert_true(strncmp(crew_protocol_content_type(protocol), "application/", 12) == 0);
        crew_bytes_free(&message);
        crew_bytes_free(&answer);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calls_are_written_alone_and_as_a_batch),
        TEST(replies_find_their_calls),
        TEST(what_is_no_reply_is_told_in_words),
        TEST(a_service_reads_calls_and_answers_them),
        TEST(what_needs_no_answer_gets_none_and_rubbish_an_error),
        TEST(a_result_that_cannot_be_carried_is_an_error),
        TEST(all_protocols_go_there_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
