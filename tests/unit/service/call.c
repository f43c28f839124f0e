#include "support/test.h"

#include <math.h>
#include <pthread.h>

static crew_status second_status;

static crew_status typed(crew_call *call)
{
    switch (crew_arg_int(call, 0)) {
    case 0: return crew_reply_null(call);
    case 1: return crew_reply_bool(call, true);
    case 2: return crew_reply_int(call, INT64_MIN);
    case 3: return crew_reply_uint(call, UINT64_MAX);
    case 4: return crew_reply_double(call, 0.1);
    case 5: return crew_reply_string(call, (crew_string){ "a\0b", 3 });
    case 6: return crew_reply_bytes(call, (crew_string){ "\0\1", 2 });
    case 7: return crew_reply(call, "{s:i}", "n", 7);
    case 8: return CREW_OK;
    case 9: return CREW_SYSTEM;
    case 10: return crew_reply_double(call, NAN);
    case 11: return crew_reply_string(call, crew_str("\xFF"));
    case 12: return crew_reply(call, "wrong");
    case 13: return crew_fail(call, 5, "%s", "\xFF!");
    case 14: return crew_fail_data(call, 5, "five", "{s:i}", "left", 3);
    case 15: return crew_fail_param(call, 0, "must not be %d", 15);
    case 16: return crew_fail_param(call, 9, "is odd");
    default: {
        crew_status first = crew_reply_int(call, 1);
        second_status = crew_fail(call, 5, "too late");
        return first;
    }
    }
}

static crew_status by_name(crew_call *call)
{
    return crew_reply(call, "[I,S,b,b]", crew_arg_int(call, crew_arg_index(call, "limit")),
                      crew_arg_string(call, crew_arg_index(call, "order")),
                      crew_arg_given(call, crew_arg_index(call, "order")),
                      crew_arg_given(call, crew_arg_index(call, "other")));
}

static crew_status arguments(crew_call *call)
{
    crew_string s = crew_arg_string(call, 3), y = crew_arg_bytes(call, 4);
    return crew_reply(call, "[i,b,I,U,f,S,i,b,i]", (int)crew_arg_count(call), crew_arg_bool(call, 0),
                      crew_arg_int(call, 1), crew_arg_uint(call, 1), crew_arg_double(call, 2), s, (int)y.size,
                      crew_arg_given(call, 5), (int)crew_arg_int(call, 99));
}

static crew_status facts(crew_call *call)
{
    crew_value *list;
    crew_arena *arena = crew_call_arena(call);
    if (crew_array_new(arena, &list) != CREW_OK ||
        crew_array_add(arena, list, crew_call_params(call)) != CREW_OK)
        return CREW_NO_MEMORY;
    return crew_reply(call, "[b,b,o]", crew_call_is_one_way(call), crew_call_remaining_ms(call) == INT64_MAX,
                      list);
}

static void *complete_later(void *argument)
{
    crew_call *call = argument;
    crew_string text = crew_arg_string(call, 0);
    crew_status status = crew_reply(call, "[S,s]", text, "later");
    if (status != CREW_OK)
        abort();
    return NULL;
}

static crew_status deferred(crew_call *call)
{
    pthread_t thread;
    crew_call *later = crew_call_defer(call);
    if (pthread_create(&thread, NULL, complete_later, later) != 0)
        return CREW_SYSTEM;
    pthread_detach(thread);
    return CREW_OK;
}

static crew_status deferred_and_failed(crew_call *call)
{
    (void)crew_call_defer(call);
    return CREW_SYSTEM;
}

static crew_status deferred_and_answered_at_once(crew_call *call)
{
    return crew_reply_int(crew_call_defer(call), 3);
}

static const crew_method methods[] = {
    { "typed", typed, "which:int" },
    { "arguments", arguments, "b:bool i:uint d:number s:string y:bytes o:any?" },
    { "by_name", by_name, "limit:uint=10 order:string=\"name\"" },
    { "facts", facts },
    { "deferred", deferred, "text:string" },
    { "deferred_and_failed", deferred_and_failed, "" },
    { "deferred_and_answered", deferred_and_answered_at_once, "" },
    { 0 },
};
static const crew_service service = { .name = "test", .methods = methods };
static crew_dispatcher *dispatcher;

static int setup(void **state)
{
    (void)state;
    assert_ok(crew_dispatcher_new(&dispatcher));
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    crew_dispatcher_free(dispatcher);
    return 0;
}

/* What lies between {"jsonrpc":"2.0", and ,"id":1}. */
static const char *answer(const char *method, const char *params)
{
    static char text[600];
    char request[300];
    crew_bytes bytes;
    (void)snprintf(request, sizeof request, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%s,\"id\":1}",
                   method, params);
    assert_ok(crew_handle(dispatcher, crew_str(request), NULL, &bytes));
    assert_true(bytes.size > 25);
    (void)snprintf(text, sizeof text, "%.*s", (int)bytes.size - 25, (const char *)bytes.data + 17);
    crew_bytes_free(&bytes);
    return text;
}

static void every_reply_has_its_value(void **state)
{
    (void)state;
    static const char *const expected[] = { "\"result\":null",
                                            "\"result\":true",
                                            "\"result\":-9223372036854775808",
                                            "\"result\":18446744073709551615",
                                            "\"result\":0.1",
                                            "\"result\":\"a\\u0000b\"",
                                            "\"result\":\"AAE=\"",
                                            "\"result\":{\"n\":7}",
                                            "\"result\":null" };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        char params[16];
        (void)snprintf(params, sizeof params, "[%zu]", i);
        assert_string_equal(answer("typed", params), expected[i]);
    }
}

static void arguments_have_names_and_defaults(void **state)
{
    (void)state;
    assert_string_equal(answer("by_name", "[]"), "\"result\":[10,\"name\",true,false]");
    assert_string_equal(answer("by_name", "[3]"), "\"result\":[3,\"name\",true,false]");
    assert_string_equal(answer("by_name", "{\"order\":\"size\"}"), "\"result\":[10,\"size\",true,false]");
}

static void what_cannot_be_answered_is_an_internal_error(void **state)
{
    (void)state;
    static const char *const params[] = { "[9]", "[10]", "[11]", "[12]" };
    for (size_t i = 0; i < 4; i++)
        assert_contains(answer("typed", params[i]),
                        "{\"code\":-32603,\"message\":\"Internal error\",\"data\"");
    assert_contains(answer("deferred_and_failed", "[]"), "-32603");
}

static void errors_carry_what_the_handler_says(void **state)
{
    (void)state;
    assert_string_equal(answer("typed", "[13]"), "\"error\":{\"code\":5,\"message\":\"?!\"}");
    assert_string_equal(answer("typed", "[14]"),
                        "\"error\":{\"code\":5,\"message\":\"five\",\"data\":{\"left\":3}}");
    assert_string_equal(
        answer("typed", "[15]"),
        "\"error\":{\"code\":-32602,\"message\":\"Invalid params: param 'which' must not be 15\","
        "\"data\":{\"param\":\"which\"}}");
    assert_contains(answer("typed", "[16]"), "param 9 is odd");
}

static void a_call_is_completed_once(void **state)
{
    (void)state;
    assert_string_equal(answer("typed", "[17]"), "\"result\":1");
    assert_status(second_status, CREW_DONE_ALREADY);
}

static void arguments_come_as_they_were_declared(void **state)
{
    (void)state;
    assert_string_equal(answer("arguments", "[true,5,1.5,\"s\",\"AAE=\"]"),
                        "\"result\":[6,true,5,5,1.5,\"s\",2,false,0]");
    assert_string_equal(answer("arguments", "[false,5,2,\"\",\"\",null]"),
                        "\"result\":[6,false,5,5,2,\"\",0,true,0]");
}

static void a_handler_knows_its_call(void **state)
{
    (void)state;
    assert_string_equal(answer("facts", "{\"a\":1}"), "\"result\":[false,true,[{\"a\":1}]]");
}

static void a_deferred_call_is_completed_from_another_thread(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++)
        assert_string_equal(answer("deferred", "[\"kept\"]"), "\"result\":[\"kept\",\"later\"]");
    assert_string_equal(answer("deferred_and_answered", "[]"), "\"result\":3");
}

static void deferred_calls_of_a_batch_are_waited_for(void **state)
{
    (void)state;
    crew_buffer request = { 0 };
    for (int i = 0; i < 50; i++)
        crew_buffer_printf(&request,
                           "%s{\"jsonrpc\":\"2.0\",\"method\":\"deferred\",\"params\":[\"%d\"],\"id\":%d}",
                           i ? "," : "[", i, i);
    crew_buffer_text(&request, "]");
    crew_bytes bytes;
    crew_arena arena = { 0 };
    const crew_value *replies = NULL;
    assert_ok(crew_handle(dispatcher, crew_buffer_string(&request), NULL, &bytes));
    assert_ok(crew_json_decode((crew_string){ bytes.data, bytes.size }, NULL, &arena, &replies, NULL));
    assert_int_equal(crew_value_count(replies), 50);
    for (int i = 0; i < 50; i++) {
        int id;
        assert_ok(crew_unpack(crew_value_at(replies, (size_t)i), "{s:i}", "id", &id));
        assert_int_equal(id, i);
    }
    crew_arena_fini(&arena);
    crew_bytes_free(&bytes);
    crew_buffer_fini(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_reply_has_its_value),
        cmocka_unit_test(arguments_have_names_and_defaults),
        cmocka_unit_test(what_cannot_be_answered_is_an_internal_error),
        cmocka_unit_test(errors_carry_what_the_handler_says),
        cmocka_unit_test(a_call_is_completed_once),
        cmocka_unit_test(arguments_come_as_they_were_declared),
        cmocka_unit_test(a_handler_knows_its_call),
        cmocka_unit_test(a_deferred_call_is_completed_from_another_thread),
        cmocka_unit_test(deferred_calls_of_a_batch_are_waited_for),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
