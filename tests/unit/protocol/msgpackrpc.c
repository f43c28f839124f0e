/* MessagePack-RPC's own rules; what it has in common with the others is in conformance/protocol.c. */
#include "support/test.h"

#include <rpcrew/impl/message.h>
#include <rpcrew/impl/protocol.h>

static const crew_protocol *protocol;
static crew_arena arena;
static crew_limits limits;

#define BYTES(literal) ((crew_string){ (literal), sizeof(literal) - 1 })

static int teardown(void **state)
{
    (void)state;
    crew_arena_fini(&arena);
    arena = (crew_arena){ 0 };
    return 0;
}

static crew_wire_calls decode(crew_string bytes)
{
    crew_wire_calls calls;
    assert_ok(protocol->decode_calls(bytes, &limits, &arena, &calls));
    return calls;
}

static void assert_answer(crew_string request, int64_t code, const char *message, const crew_value *result,
                          crew_wire_errors errors, crew_string expected)
{
    crew_buffer out = { 0 };
    crew_wire_call call = decode(request).items[0];
    call.errors = (uint8_t)errors;
    if (message)
        assert_ok(protocol->encode_error(&call, code, crew_str(message), result, &out));
    else
        assert_ok(protocol->encode_result(&call, result, &out));
    assert_int_equal(out.size, expected.size);
    assert_memory_equal(out.data, expected.data, expected.size);
    crew_buffer_fini(&out);
}

static void requests_and_notifications(void **state)
{
    (void)state;
    crew_wire_call call = decode(BYTES("\x94\x00\x00\xa3"
                                       "add\x92\x01\x02"))
                              .items[0]; /* 0 is an id like others */
    assert_int_equal(call.code, 0);
    assert_false(call.one_way);
    assert_true(crew_string_equal(call.method, crew_str("add")));
    assert_int_equal(crew_value_count(call.params), 2);
    call = decode(BYTES("\x93\x02\xa1m\x90")).items[0];
    assert_true(call.one_way && call.code == 0);
    call = decode(BYTES("\x94\x00\x01\xc4\x01m\xc0")).items[0]; /* a method as bin, no params */
    assert_true(crew_string_equal(call.method, crew_str("m")) && call.code == 0 && !call.params);
    call = decode(BYTES("\xdc\x00\x04\xcc\x00\xcd\x00\x07\xd9\x01m\x81\xa1k\x01"))
               .items[0]; /* long forms, a map */
    assert_int_equal(call.code, 0);
    assert_int_equal(crew_value_type(call.params), CREW_TYPE_OBJECT);
}

static void bytes_on_the_wire(void **state)
{
    (void)state;
    crew_buffer out = { 0 };
    assert_ok(protocol->encode_call(crew_str("m"), NULL, 7, &out));
    assert_memory_equal(out.data, "\x94\x00\x07\xa1m\x90", 6);
    crew_buffer_clear(&out);
    assert_ok(protocol->encode_call(crew_str("m"), parse_json(&arena, "[1]"), 0, &out));
    assert_memory_equal(out.data, "\x93\x02\xa1m\x91\x01", 6);
    crew_buffer_fini(&out);
    crew_string request = BYTES("\x94\x00\xce\xff\xff\xff\xff\xa1m\x90");
    const crew_value *data = parse_json(&arena, "5");
    assert_answer(request, 0, NULL, data, CREW_ERRORS_PAIR, BYTES("\x94\x01\xce\xff\xff\xff\xff\xc0\x05"));
    assert_answer(request, -1, "no", data, CREW_ERRORS_PAIR,
                  BYTES("\x94\x01\xce\xff\xff\xff\xff\x92\xff\xa2no\xc0"));
    assert_answer(request, -1, "no", data, CREW_ERRORS_STRING,
                  BYTES("\x94\x01\xce\xff\xff\xff\xff\xa2no\xc0"));
    assert_answer(request, -1, "no", data, CREW_ERRORS_DATA,
                  BYTES("\x94\x01\xce\xff\xff\xff\xff\x93\xff\xa2no\x05\xc0"));
    assert_answer(request, -1, "no", data, CREW_ERRORS_NVIM,
                  BYTES("\x94\x01\xce\xff\xff\xff\xff\x92\x00\xa2no\xc0"));
    assert_answer(BYTES("\xc0"), -32600, "no", NULL, CREW_ERRORS_PAIR,
                  BYTES("\x94\x01\xc0\x92\xd1\x80\xa8\xa2no\xc0")); /* of no request: the id is nil */
}

static void expect(crew_string bytes, int code, bool malformed)
{
    crew_wire_calls calls = decode(bytes);
    assert_int_equal(calls.count, 1);
    assert_int_equal(calls.items[0].code, code);
    assert_false(calls.items[0].one_way);
    assert_int_equal(calls.malformed, malformed);
}

static void what_is_no_request_is_told_so(void **state)
{
    (void)state;
    expect(BYTES(""), CREW_CODE_PARSE_ERROR, true);
    expect(BYTES("\xc1"), CREW_CODE_PARSE_ERROR, true);
    expect(BYTES("\x94\x00\x01\xa1m"), CREW_CODE_PARSE_ERROR, true);
    expect(BYTES("\x90"), CREW_CODE_INVALID_REQUEST, false);
    expect(BYTES("\x05"), CREW_CODE_INVALID_REQUEST, false);
    expect(BYTES("\x94\x03\x01\xa1m\x90"), CREW_CODE_INVALID_REQUEST, false);
    expect(BYTES("\x94\x01\x01\xc0\xc0"), CREW_CODE_INVALID_REQUEST, false); /* a response */
    expect(BYTES("\x93\x00\x01\xa1m"), CREW_CODE_INVALID_REQUEST, false);
    expect(BYTES("\x95\x00\x01\xa1m\x90\x90"), CREW_CODE_INVALID_REQUEST, false);
    expect(BYTES("\x94\x00\xff\xa1m\x90"), CREW_CODE_INVALID_REQUEST, false);  /* id -1 */
    expect(BYTES("\x94\x00\xa1x\xa1m\x90"), CREW_CODE_INVALID_REQUEST, false); /* id "x" */
    expect(BYTES("\x94\x00\xcf\x00\x00\x00\x01\x00\x00\x00\x00\xa1m\x90"), CREW_CODE_INVALID_REQUEST, false);
    expect(BYTES("\x94\x00\x01\x05\x90"), CREW_CODE_INVALID_REQUEST, false); /* method 5 */
    expect(BYTES("\x94\x00\x01\xc4\x01\xff\x90"), CREW_CODE_INVALID_REQUEST, false);
    expect(BYTES("\x94\x00\x01\xa1m\x05"), CREW_CODE_INVALID_REQUEST, false); /* params 5 */
}

static void several_messages_are_several_calls(void **state)
{
    (void)state;
    crew_wire_calls calls =
        decode(BYTES("\x94\x00\x01\xa1m\x90\x93\x02\xa1n\x90\x90\x94\x00\x02\xa1o\x90\xc1"));
    assert_int_equal(calls.count, 5);
    assert_true(calls.batch);
    assert_int_equal(calls.items[0].code, 0);
    assert_true(calls.items[1].one_way);
    assert_int_equal(calls.items[2].code, CREW_CODE_INVALID_REQUEST);
    assert_int_equal(calls.items[3].code, 0);
    assert_int_equal(calls.items[4].code, CREW_CODE_PARSE_ERROR);
    calls = decode(BYTES("\x93\x02\xa1n\x90{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"id\":1}"));
    assert_int_equal(calls.count, 2); /* what is no message at all is one error, not one a byte */
    assert_int_equal(calls.items[1].code, CREW_CODE_INVALID_REQUEST);
    limits.batch = 2;
    calls = decode(BYTES("\x93\x02\xa1n\x90\x93\x02\xa1n\x90\x93\x02\xa1n\x90"));
    limits.batch = 1000;
    assert_int_equal(calls.count, 3);
    assert_int_equal(calls.items[2].code, CREW_CODE_INVALID_REQUEST);
}

static void what_is_wrong_within_a_call_costs_that_call_only(void **state)
{
    (void)state;
    limits.string_bytes = 8;
    limits.items = 4;
    limits.depth = 4;
    const struct {
        crew_string bad;
        int code;
        bool one_way;
    } cases[] = {
        { BYTES("\x94\x00\x07\xa1m\x91\xa1\xff"), CREW_CODE_INVALID_PARAMS, false },
        { BYTES("\x94\x00\x07\xa1m\x81\xa1\xff\x01"), CREW_CODE_INVALID_PARAMS, false },
        { BYTES("\x93\x02\xa1m\x91\xa1\xff"), CREW_CODE_INVALID_PARAMS, true },
        { BYTES("\x94\x00\x07\xa1\xff\x90"), CREW_CODE_INVALID_REQUEST, false },
        { BYTES("\x94\x00\x07\xa1m\x91\xa9"
                "123456789"),
          CREW_CODE_INVALID_REQUEST, false },
        { BYTES("\x94\x00\x07\xa1m\x91\xc4\x09"
                "123456789"),
          CREW_CODE_INVALID_REQUEST, false },
        { BYTES("\x94\x00\x07\xa1m\x95\x01\x02\x03\x04\x05"), CREW_CODE_INVALID_REQUEST, false },
        { BYTES("\x94\x00\x07\xa1m\x91\x91\x91\x81\x01\x02"), CREW_CODE_INVALID_REQUEST, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        crew_buffer body = { 0 };
        crew_buffer_append(&body, "\x94\x00\x01\xa1m\x90", 6);
        crew_buffer_append(&body, cases[i].bad.data, cases[i].bad.size);
        crew_buffer_append(&body, "\x94\x00\x02\xa1m\x91\x05", 7);
        crew_wire_calls calls = decode(crew_buffer_string(&body));
        assert_int_equal(calls.count, 3);
        assert_int_equal(calls.items[0].code, 0);
        assert_int_equal(calls.items[1].code, cases[i].code);
        assert_int_equal(calls.items[1].one_way, cases[i].one_way);
        assert_true(cases[i].one_way || crew_string_equal(calls.items[1].id, crew_str("\x07")));
        assert_int_equal(calls.items[2].code, 0);
        assert_int_equal(crew_value_count(calls.items[2].params), 1);
        crew_buffer_fini(&body);
    }
    limits = crew_limits_resolve(NULL);
    /* What is broken off has an id as well, if it got that far. */
    crew_wire_calls calls = decode(BYTES("\x94\x00\x07\xa1m\x91\xc1"));
    assert_int_equal(calls.items[0].code, CREW_CODE_PARSE_ERROR);
    assert_true(crew_string_equal(calls.items[0].id, crew_str("\x07")));
    calls = decode(BYTES("\x94\x00\x07\xa1"));
    assert_true(crew_string_equal(calls.items[0].id, crew_str("\x07")));
    calls = decode(BYTES("\x94\x00"));
    assert_int_equal(calls.items[0].id.size, 0);
}

static crew_wire_reply reply_of(crew_string bytes)
{
    crew_wire_replies replies;
    crew_error why;
    assert_ok_why(protocol->decode_replies(bytes, &limits, &arena, &replies, &why), why);
    return replies.items[0];
}

static void errors_of_others_are_shown(void **state)
{
    (void)state;
    crew_wire_reply reply = reply_of(BYTES("\x94\x01\x05\xa4oops\xc0")); /* Go's codec: a text */
    assert_true(reply.valid && reply.is_error);
    assert_true(crew_string_equal(reply.message, crew_str("oops")));
    assert_int_equal(reply.id, 5);
    reply = reply_of(BYTES("\x94\x01\x05\x92\x01\xa4oops\xc0")); /* neovim: [0 or 1, text] */
    assert_int_equal(reply.code, 1);
    reply = reply_of(BYTES("\x94\x01\x05\x81\xa1k\x01\xc0")); /* anything else that is not nil */
    assert_true(reply.is_error);
    assert_int_equal(crew_value_count(reply.data), 1);
    reply = reply_of(BYTES("\x94\x01\x05\x93\xff\xa2no\x07\xc0"));
    assert_int_equal(crew_value_type(reply.data), CREW_TYPE_INT);
}

static void ids_of_replies(void **state)
{
    (void)state;
    assert_int_equal(reply_of(BYTES("\x94\x01\xc0\xa1x\xc0")).id_kind, CREW_ID_NULL);
    assert_int_equal(reply_of(BYTES("\x94\x01\x00\xa1x\xc0")).id_kind,
                     CREW_ID_NULL); /* none that we sent, or nothing */
    assert_int_equal(reply_of(BYTES("\x94\x01\xff\xa1x\xc0")).id_kind, CREW_ID_FOREIGN);
    assert_int_equal(reply_of(BYTES("\x94\x01\xa1z\xa1x\xc0")).id_kind, CREW_ID_FOREIGN);
    assert_false(reply_of(BYTES("\x94\x00\x01\xa1m\x90")).valid); /* a request */
    assert_false(reply_of(BYTES("\x05")).valid);
}

static void what_is_behind_good_replies_is_told(void **state)
{
    (void)state;
    crew_wire_replies replies;
    crew_error fault;
    assert_ok(protocol->decode_replies(BYTES("\x94\x01\x01\xc0\x05\x94\x01\x02\xc0\xc1"), &limits, &arena,
                                       &replies, &fault));
    assert_int_equal(replies.count, 2);
    assert_true(replies.items[0].valid && replies.items[0].id == 1);
    assert_false(replies.items[1].valid);
    assert_contains(replies.items[1].reason, "begins nothing");
    assert_status(protocol->decode_replies(BYTES("\xc1"), &limits, &arena, &replies, &fault), CREW_MALFORMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(requests_and_notifications, teardown),
        cmocka_unit_test_teardown(bytes_on_the_wire, teardown),
        cmocka_unit_test_teardown(what_is_no_request_is_told_so, teardown),
        cmocka_unit_test_teardown(several_messages_are_several_calls, teardown),
        cmocka_unit_test_teardown(what_is_wrong_within_a_call_costs_that_call_only, teardown),
        cmocka_unit_test_teardown(errors_of_others_are_shown, teardown),
        cmocka_unit_test_teardown(ids_of_replies, teardown),
        cmocka_unit_test_teardown(what_is_behind_good_replies_is_told, teardown),
    };
    limits = crew_limits_resolve(NULL);
    protocol = crew_protocol_find("msgpack");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
