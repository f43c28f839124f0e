/* What every protocol keeps, whatever its bytes: run as `protocol NAME`. */
#include "support/test.h"

#include <rpcrew/impl/message.h>
#include <rpcrew/impl/protocol.h>

static const crew_protocol *protocol;
static crew_arena arena;
static crew_limits limits;

static int teardown(void **state)
{
    (void)state;
    crew_arena_fini(&arena);
    return 0;
}

static crew_buffer encode_call(const char *method, const crew_value *params, uint32_t id)
{
    crew_buffer out = { 0 };
    assert_ok(protocol->encode_call(crew_str(method), params, id, &out));
    return out;
}

static crew_wire_calls decode_calls(const crew_buffer *bytes)
{
    crew_wire_calls calls;
    assert_ok(protocol->decode_calls(crew_buffer_string(bytes), &limits, &arena, &calls));
    return calls;
}

static void a_call_comes_back_as_it_was(void **state)
{
    (void)state;
    const crew_value *params = parse_json(&arena, "[1,-2.5,\"text\",null,true,[{\"k\":[]}]]");
    crew_buffer bytes = encode_call("a.method", params, 42);
    crew_wire_calls calls = decode_calls(&bytes);
    assert_int_equal(calls.count, 1);
    assert_false(calls.batch || calls.malformed);
    assert_int_equal(calls.items[0].code, 0);
    assert_false(calls.items[0].one_way);
    assert_true(crew_string_equal(calls.items[0].method, crew_str("a.method")));
    assert_true(crew_value_equal(calls.items[0].params, params));
    crew_buffer_fini(&bytes);
}

static void a_one_way_call_has_no_id(void **state)
{
    (void)state;
    crew_buffer bytes = encode_call("m", NULL, 0);
    crew_wire_calls calls = decode_calls(&bytes);
    assert_int_equal(calls.items[0].code, 0);
    assert_true(calls.items[0].one_way);
    assert_int_equal(crew_value_count(calls.items[0].params), 0);
    crew_buffer_fini(&bytes);
}

static crew_wire_reply answer(uint32_t id, const crew_value *result, int64_t code, const char *message,
                              const crew_value *data)
{
    crew_buffer bytes = encode_call("m", NULL, id), out = { 0 };
    crew_wire_calls calls = decode_calls(&bytes);
    crew_wire_replies replies;
    crew_error why;
    if (message)
        assert_ok(protocol->encode_error(&calls.items[0], code, crew_str(message), data, &out));
    else
        assert_ok(protocol->encode_result(&calls.items[0], result, &out));
    assert_true(protocol->sniff(crew_buffer_string(&out)));
    assert_ok_why(protocol->decode_replies(crew_buffer_string(&out), &limits, &arena, &replies, &why), why);
    assert_int_equal(replies.count, 1);
    crew_buffer_fini(&bytes);
    crew_buffer_fini(&out);
    return replies.items[0];
}

static void a_result_comes_back_under_its_id(void **state)
{
    (void)state;
    static const uint32_t ids[] = { 1, 127, 128, 65536, UINT32_MAX };
    const crew_value *result = parse_json(&arena, "{\"list\":[1,2.5,\"x\"],\"none\":null}");
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        crew_wire_reply reply = answer(ids[i], result, 0, NULL, NULL);
        assert_true(reply.valid && !reply.is_error);
        assert_int_equal(reply.id_kind, CREW_ID_NUMBER);
        assert_int_equal(reply.id, ids[i]);
        assert_true(crew_value_equal(reply.result, result));
    }
    assert_int_equal(crew_value_type(answer(1, NULL, 0, NULL, NULL).result), CREW_TYPE_NULL);
}

static void an_error_comes_back_with_code_and_message(void **state)
{
    (void)state;
    crew_wire_reply reply = answer(9, NULL, -32000, "no \"room\"", NULL);
    assert_true(reply.valid && reply.is_error);
    assert_int_equal(reply.code, -32000);
    assert_true(crew_string_equal(reply.message, crew_str("no \"room\"")));
}

static void a_reply_is_told_from_a_request(void **state)
{
    (void)state;
    crew_buffer request = encode_call("m", NULL, 9), replies[2] = { { 0 } };
    crew_wire_calls calls = decode_calls(&request);
    assert_false(calls.items[0].is_reply);
    const crew_wire_call call = calls.items[0];
    assert_ok(protocol->encode_result(&call, NULL, &replies[0]));
    assert_ok(protocol->encode_error(&call, 1, crew_str("no"), NULL, &replies[1]));
    for (size_t i = 0; i < 2; i++) {
        calls = decode_calls(&replies[i]);
        assert_int_equal(calls.count, 1);
        assert_true(calls.items[0].is_reply);
        assert_int_not_equal(calls.items[0].code, 0);
        crew_buffer_fini(&replies[i]);
    }
    crew_buffer_fini(&request);
}

static void a_batch_is_open_separator_close(void **state)
{
    (void)state;
    crew_buffer bytes = { 0 };
    crew_buffer_text(&bytes, protocol->batch_open);
    for (uint32_t i = 1; i <= 3; i++) {
        crew_buffer one = encode_call("m", NULL, i);
        if (i > 1)
            crew_buffer_text(&bytes, protocol->batch_separator);
        crew_buffer_append(&bytes, one.data, one.size);
        crew_buffer_fini(&one);
    }
    crew_buffer_text(&bytes, protocol->batch_close);
    if (strcmp(protocol->name, "jsonrpc1") != 0) /* 1.0 has no batches */
        assert_int_equal(decode_calls(&bytes).items[2].code, 0);
    assert_int_equal(decode_calls(&bytes).count, 3);
    crew_buffer_fini(&bytes);
}

static void any_bytes_decode_to_at_least_one_item(void **state)
{
    (void)state;
    uint32_t random = 12345;
    crew_buffer good = encode_call("method", parse_json(&arena, "[1,\"two\"]"), 5);
    for (int round = 0; round < 20000; round++) {
        char bytes[200];
        size_t size = good.size;
        memcpy(bytes, good.data, size);
        for (int changes = round % 5; changes >= 0; changes--) {
            random = random * 1664525 + 1013904223;
            bytes[(random >> 8) % size] = (char)(random >> 24);
        }
        if (round % 3 == 0)
            size = (random >> 4) % size;
        crew_wire_calls calls = { 0 };
        crew_wire_replies replies;
        crew_error why;
        assert_ok(protocol->decode_calls((crew_string){ bytes, size }, &limits, &arena, &calls));
        assert_true(calls.count >= 1);
        (void)!protocol->decode_replies((crew_string){ bytes, size }, &limits, &arena, &replies, &why);
        crew_arena_reset(&arena);
    }
    crew_buffer_fini(&good);
}

static void a_failed_encoding_leaves_nothing(void **state)
{
    (void)state;
    crew_buffer out = { 0 };
    crew_buffer_text(&out, "before");
    assert_status(protocol->encode_call(crew_str("m"), parse_json(&arena, "\"no params\""), 1, &out),
                  CREW_BAD_ARGUMENT);
    assert_int_equal(out.size, 6);
    crew_buffer_fini(&out);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_comes_back_as_it_was),
        cmocka_unit_test(a_one_way_call_has_no_id),
        cmocka_unit_test(a_result_comes_back_under_its_id),
        cmocka_unit_test(an_error_comes_back_with_code_and_message),
        cmocka_unit_test(a_reply_is_told_from_a_request),
        cmocka_unit_test(a_batch_is_open_separator_close),
        cmocka_unit_test(any_bytes_decode_to_at_least_one_item),
        cmocka_unit_test(a_failed_encoding_leaves_nothing),
    };
    limits = crew_limits_resolve(NULL);
    protocol = argc > 1 ? crew_protocol_find(argv[1]) : NULL;
    if (!protocol)
        return 2;
    return cmocka_run_group_tests_name(argv[1], tests, NULL, teardown);
}
