#include "support/test.h"

#include "conformance/service.h"
#include "protocol/protocols.h"

#include <rpcrew/impl/message.h>

static crew_dispatcher *dispatcher;
static crew_arena arena;
static crew_limits limits;

static int setup(void **state)
{
    (void)state;
    limits = crew_limits_resolve(NULL);
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &conformance_service, NULL, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_dispatcher_free(dispatcher);
    crew_arena_fini(&arena);
    return 0;
}

static crew_bytes handle(void *context, crew_string request)
{
    (void)context;
    crew_bytes answer = { 0 };
    assert_ok(crew_handle(dispatcher, request, &(crew_handle_options){ .content_type = "application/json" },
                          &answer));
    return answer;
}

static void answers(const char *request, const char *exactly)
{
    crew_bytes answer = handle(NULL, crew_str(request));
    assert_int_equal(answer.size, strlen(exactly));
    assert_memory_equal(answer.data, exactly, answer.size);
    crew_bytes_free(&answer);
}

/* As Go's net/rpc/jsonrpc reads them. */
static void errors_of_1_0_may_be_texts(void **state)
{
    (void)state;
    static const struct {
        const char *request, *reply;
    } rows[] = {
        { "{\"method\":\"nope\",\"params\":[1],\"id\":0}",
          "{\"result\":null,\"error\":\"Method not found\",\"id\":0}" },
        { "{\"method\":\"echo\",\"params\":[null],\"id\":0}", "{\"result\":{},\"error\":null,\"id\":0}" },
        { "{\"method\":\"echo\",\"params\":[0],\"id\":0}", "{\"result\":0,\"error\":null,\"id\":0}" },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":[null],\"id\":0}",
          "{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":0}" },
        { "{\"jsonrpc\":\"2.0\",\"method\":\"fail\",\"params\":[1,\"x\"],\"id\":0}",
          "{\"jsonrpc\":\"2.0\",\"error\":{\"code\":1,\"message\":\"x\"},\"id\":0}" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        crew_bytes answer;
        assert_ok(crew_handle(dispatcher, crew_str(rows[i].request),
                              &(crew_handle_options){ .errors = CREW_ERRORS_STRING }, &answer));
        assert_string_equal(answer.data, rows[i].reply);
        crew_bytes_free(&answer);
    }
}

static void replies_are_these_bytes(void **state)
{
    (void)state;
    answers("{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":123456789012345678901234567890}",
            "{\"jsonrpc\":\"2.0\",\"result\":3,\"id\":123456789012345678901234567890}");
    answers("{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":1.0e2}",
            "{\"jsonrpc\":\"2.0\",\"result\":3,\"id\":1.0e2}");
    answers("{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":1e400}",
            "{\"jsonrpc\":\"2.0\",\"result\":3,\"id\":1e400}");
    answers("{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"\\u0069d\":99999999999999999999}",
            "{\"jsonrpc\":\"2.0\",\"result\":3,\"id\":99999999999999999999}");
    answers("{\"method\":\"fail\",\"params\":[1,\"x\"],\"id\":\"\\u0041\"}",
            "{\"result\":null,\"error\":{\"code\":1,\"message\":\"x\"},\"id\":\"\\u0041\"}");
    answers("[{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,2],\"id\":1},"
            "{\"jsonrpc\":\"2.0\",\"method\":\"add\",\"params\":[1,3],\"id\":2}]",
            "[{\"jsonrpc\":\"2.0\",\"result\":3,\"id\":1},{\"jsonrpc\":\"2.0\",\"result\":4,\"id\":2}]");
}

static void the_limits_answer_with_an_error(void **state)
{
    (void)state;
    crew_limits small = { .message_bytes = 200, .depth = 4, .batch = 2, .string_bytes = 20 };
    static const char *const beyond[] = {
        "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":[[[[1]]]],\"id\":1}",
        "[{\"jsonrpc\":\"2.0\",\"method\":\"update\"},{\"jsonrpc\":\"2.0\",\"method\":\"update\"},"
        "{\"jsonrpc\":\"2.0\",\"method\":\"update\"}]",
        "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":[\"123456789012345678901\"],\"id\":1}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"echo\",\"params\":[1],\"id\":1}"
        "                                                                                                    "
        "     "
        "                                                                                                    "
        "     ",
    };
    for (size_t i = 0; i < sizeof beyond / sizeof *beyond; i++) {
        crew_bytes answer;
        assert_ok(
            crew_handle(dispatcher, crew_str(beyond[i]), &(crew_handle_options){ .limits = small }, &answer));
        char *text = strndup(answer.data, answer.size);
        assert_contains(text, "-32600");
        free(text);
        crew_bytes_free(&answer);
    }
    crew_bytes answer;
    assert_ok(crew_handle(dispatcher,
                          crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"blob\",\"params\":[201],\"id\":1}"),
                          &(crew_handle_options){ .limits = small }, &answer));
    char *text = strndup(answer.data, answer.size);
    assert_contains(text, "-32603");
    assert_contains(text, "beyond a limit");
    free(text);
    crew_bytes_free(&answer);
}

static void one_reply_beyond_the_limit_costs_the_others_of_its_batch_nothing(void **state)
{
    (void)state;
    crew_bytes answer;
    assert_ok(crew_handle(dispatcher,
                          crew_str("[{\"jsonrpc\":\"2.0\",\"method\":\"blob\",\"params\":[9000],\"id\":1},"
                                   "{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":2}]"),
                          &(crew_handle_options){ .limits = { .message_bytes = 1000 } }, &answer));
    assert_contains((const char *)answer.data, "{\"code\":-32603");
    assert_contains((const char *)answer.data, "\"result\":[\"hello\",5],\"id\":2");
    crew_bytes_free(&answer);
    crew_bytes_free(NULL);
}

static void no_batch_of_replies_is_beyond_the_limit(void **state)
{
    (void)state;
    crew_bytes answer;
    crew_buffer batch = { 0 };
    for (int i = 0; i < 20; i++)
        crew_buffer_printf(&batch, "%s{\"jsonrpc\":\"2.0\",\"method\":\"blob\",\"params\":[900],\"id\":%d}",
                           i ? "," : "[", i);
    crew_buffer_text(&batch, "]");
    const crew_handle_options options = { .limits = { .message_bytes = 6000 } };
    assert_ok(crew_handle(dispatcher, crew_buffer_string(&batch), &options, &answer));
    assert_true(answer.size > 2000 && answer.size <= 6000);
    for (int i = 0; i < 20; i++) {
        char id[20];
        (void)snprintf(id, sizeof id, "\"id\":%d}", i);
        assert_contains((const char *)answer.data, id);
    }
    assert_contains((const char *)answer.data, "xxxx");
    assert_contains((const char *)answer.data, "-32603");
    crew_bytes_free(&answer);
    crew_buffer_clear(&batch);
    for (int i = 0; i < 100; i++) /* each has its own room, however many there are */
        crew_buffer_printf(&batch, "%s{\"jsonrpc\":\"2.0\",\"method\":\"get_data\",\"id\":%d}", i ? "," : "[",
                           i);
    crew_buffer_text(&batch, "]");
    assert_ok(crew_handle(dispatcher, crew_buffer_string(&batch), &options, &answer));
    assert_null(strstr(answer.data, "error"));
    crew_bytes_free(&answer);
    crew_buffer_fini(&batch);
}

static const char *call_text(const crew_protocol *protocol, const char *params, uint32_t id)
{
    crew_buffer out = { 0 };
    assert_ok(protocol->encode_call(crew_str("m"), params ? parse_json(&arena, params) : NULL, id, &out));
    return crew_buffer_move(&out, &arena).data;
}

static void calls_are_these_bytes(void **state)
{
    (void)state;
    assert_string_equal(call_text(&crew_jsonrpc, "[1]", 7),
                        "{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":[1],\"id\":7}");
    assert_string_equal(call_text(&crew_jsonrpc, NULL, 0), "{\"jsonrpc\":\"2.0\",\"method\":\"m\"}");
    assert_string_equal(call_text(&crew_jsonrpc, "{\"a\":1}", 0),
                        "{\"jsonrpc\":\"2.0\",\"method\":\"m\",\"params\":{\"a\":1}}");
    assert_string_equal(call_text(&crew_jsonrpc1, NULL, 7), "{\"method\":\"m\",\"params\":[],\"id\":7}");
    assert_string_equal(call_text(&crew_jsonrpc1, "[1]", 0), "{\"method\":\"m\",\"params\":[1],\"id\":null}");
    crew_buffer out = { 0 };
    const crew_value *text = parse_json(&arena, "\"text\""), *object = parse_json(&arena, "{}");
    assert_status(crew_jsonrpc.encode_call(crew_str("m"), text, 1, &out), CREW_BAD_ARGUMENT);
    assert_status(crew_jsonrpc1.encode_call(crew_str("m"), object, 1, &out), CREW_BAD_ARGUMENT);
    assert_int_equal(out.size, 0);
    crew_buffer_fini(&out);
}

static crew_wire_reply reply_of(const char *text)
{
    crew_wire_replies replies;
    crew_error why;
    assert_ok_why(crew_jsonrpc.decode_replies(crew_str(text), &limits, &arena, &replies, &why), why);
    assert_int_equal(replies.count, 1);
    return replies.items[0];
}

static void replies_of_all_kinds_of_services_are_read(void **state)
{
    (void)state;
    crew_wire_reply r = reply_of("{\"jsonrpc\":\"2.0\",\"result\":null,\"id\":7}");
    assert_true(r.valid && !r.is_error && r.id_kind == CREW_ID_NUMBER && r.id == 7 && r.result);
    r = reply_of("{\"result\":1,\"error\":null,\"id\":7.0}");
    assert_true(r.valid && !r.is_error && r.id_kind == CREW_ID_NUMBER && r.id == 7);
    r = reply_of("{\"result\":null,\"error\":\"broken\",\"id\":7}");
    assert_true(r.valid && r.is_error && crew_string_equal(r.message, crew_str("broken")));
    r = reply_of("{\"result\":null,\"error\":[1],\"id\":7}");
    assert_true(r.valid && r.is_error && crew_value_count(r.data) == 1);
    r = reply_of("{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-1,\"message\":\"m\",\"data\":5},\"id\":null}");
    assert_true(r.valid && r.is_error && r.code == -1 && r.id_kind == CREW_ID_NULL && r.data);
}

static void replies_that_break_the_protocol_are_not_valid(void **state)
{
    (void)state;
    static const char *const broken[] = {
        "{\"jsonrpc\":\"2.0\",\"id\":7}",
        "{\"jsonrpc\":\"2.0\",\"result\":1,\"error\":{\"code\":1,\"message\":\"\"},\"id\":7}",
        "{\"jsonrpc\":\"2.0\",\"error\":{\"message\":\"\"},\"id\":7}",
        "{\"jsonrpc\":\"2.0\",\"error\":\"text\",\"id\":7}",
        "{\"jsonrpc\":\"2.0\",\"result\":99999999999999999999,\"id\":7}",
        "7",
    };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        crew_wire_reply r = reply_of(broken[i]);
        assert_false(r.valid);
        assert_non_null(r.reason);
    }
    static const char *const foreign[] = { "\"7\"", "0", "-7", "7.5", "4294967296", "true", "[7]" };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        char text[100];
        (void)snprintf(text, sizeof text, "{\"jsonrpc\":\"2.0\",\"result\":1,\"id\":%s}", foreign[i]);
        assert_int_equal(reply_of(text).id_kind, CREW_ID_FOREIGN);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_of_1_0_may_be_texts),
        cmocka_unit_test(replies_are_these_bytes),
        cmocka_unit_test(the_limits_answer_with_an_error),
        cmocka_unit_test(one_reply_beyond_the_limit_costs_the_others_of_its_batch_nothing),
        cmocka_unit_test(no_batch_of_replies_is_beyond_the_limit),
        cmocka_unit_test(calls_are_these_bytes),
        cmocka_unit_test(replies_of_all_kinds_of_services_are_read),
        cmocka_unit_test(replies_that_break_the_protocol_are_not_valid),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
