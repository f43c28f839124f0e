/* Handlers that call another service: with options, in batches, and what becomes of its errors. */
#include "support/gate.h"
#include "support/test.h"

#define BEHIND "inproc://pass-on-behind"
#define FRONT  "inproc://pass-on-front"

enum { OWN = 7, NO_ANSWER = 504 };

static struct gate gate = GATE_INITIALIZER;
static crew_dispatcher *behind, *front;
static crew_server *behind_server, *front_server;
static crew_client *to_behind, *to_front;
static crew_error why;

/* ---- the service behind ---- */

static crew_status fail_own(crew_call *call)
{
    return crew_fail_data(call, OWN, "none left", "{s:i}", "left", 0);
}

static crew_status fail_unrun(crew_call *call)
{
    return crew_fail_data(call, OWN, "not now", "{s:{s:s},s:i}", "rpcrew", "executed", "no", "left", 1);
}

static crew_status left(crew_call *call)
{
    return crew_reply_int(call, crew_call_remaining_ms(call));
}

static crew_status hold(crew_call *call)
{
    gate_pass(&gate);
    return crew_reply_null(call);
}

static const crew_method behind_methods[] = {
    { .name = "fail_own", .handler = fail_own, .params = "" },
    { .name = "fail_unrun", .handler = fail_unrun, .params = "" },
    { .name = "left", .handler = left, .params = "any:any?" },
    { .name = "hold", .handler = hold, .params = "" },
    { 0 },
};
static const crew_service behind_service = { .name = "behind", .methods = behind_methods };

/* ---- the one in front: each method asks the one that its param names ---- */

static crew_status ask(crew_call *call)
{
    crew_result *result;
    crew_error error;
    const crew_call_options options = { .within = call, .timeout_ms = 100 };
    char method[40];
    (void)snprintf(method, sizeof method, "%.*s", CREW_STR(crew_arg_string(call, 0)));
    crew_status status = crew_client_call_with(to_behind, &options, method, &result, &error, "");
    status = status == CREW_OK ? crew_reply_value(call, crew_result_value(result))
                               : crew_fail_from(call, NO_ANSWER, result, &error);
    crew_result_free(result);
    return status;
}

/* The least time that three calls of a batch had. */
static crew_status ask_many(crew_call *call)
{
    crew_batch *batch;
    int64_t least = INT64_MAX;
    crew_status status = crew_batch_new(&batch, to_behind);
    for (int i = 0; i < 3 && status == CREW_OK; i++)
        status = crew_batch_add(batch, "left", "[i]", i);
    if (status == CREW_OK)
        status = crew_batch_run_with(batch, &(crew_call_options){ .within = call }, NULL);
    for (size_t i = 0; status == CREW_OK && i < 3; i++) {
        int64_t had = 0;
        status = crew_value_int(crew_batch_value(batch, i), &had);
        least = had < least ? had : least;
    }
    crew_batch_free(batch);
    return status == CREW_OK ? crew_reply_int(call, least) : status;
}

static crew_status fail_as_sent_twice(crew_call *call);

static const crew_method front_methods[] = {
    { .name = "fail_as_sent_twice", .handler = fail_as_sent_twice, .params = "sent:bool" },
    { .name = "ask", .handler = ask, .params = "method:string" },
    { .name = "ask_many", .handler = ask_many, .params = "" },
    { 0 },
};
static const crew_service_error front_errors[] = { { NO_ANSWER, "NO_ANSWER", "behind did not answer" },
                                                   { 0 } };
static const crew_service front_service = { .name = "front",
                                            .methods = front_methods,
                                            .errors = front_errors };

static crew_server *serve(crew_dispatcher *dispatcher, const char *url)
{
    crew_server *server;
    assert_ok_why(crew_server_new(&server, dispatcher, NULL, &why), why);
    assert_ok_why(crew_server_listen(server, url, &why), why);
    assert_ok_why(crew_server_start(server, &why), why);
    return server;
}

static int setup(void **state)
{
    (void)state;
    gate_reset(&gate);
    assert_ok(crew_dispatcher_new(&behind));
    assert_ok(crew_dispatcher_add(behind, "", &behind_service, NULL, NULL));
    assert_ok(crew_dispatcher_new(&front));
    assert_ok(crew_dispatcher_add(front, "", &front_service, NULL, NULL));
    behind_server = serve(behind, BEHIND);
    front_server = serve(front, FRONT);
    assert_ok_why(crew_client_new(&to_behind, BEHIND, NULL, &why), why);
    assert_ok_why(crew_client_new(&to_front, FRONT, NULL, &why), why);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    gate_open(&gate);
    crew_client_free(to_front);
    crew_server_free(front_server);
    crew_client_free(to_behind);
    crew_server_free(behind_server);
    crew_dispatcher_free(front);
    crew_dispatcher_free(behind);
    return 0;
}

static void fails_as(const char *method, int64_t code, const char *message, const char *data,
                     crew_executed executed)
{
    crew_arena *arena;
    crew_result *result;
    assert_ok(crew_arena_new(&arena));
    assert_status(crew_client_call(to_front, "ask", &result, &why, "[s]", method), CREW_REMOTE_ERROR);
    assert_int_equal(why.code, code);
    assert_string_equal(why.peer_message, message);
    assert_string_equal(json_of(arena, crew_result_error_data(result)), data);
    assert_int_equal(why.executed, executed);
    crew_result_free(result);
    crew_arena_free(arena);
}

static void an_error_of_the_other_service_is_passed_on(void **state)
{
    (void)state;
    fails_as("fail_own", OWN, "none left", "{\"left\":0}", CREW_EXECUTED_YES);
    fails_as("fail_unrun", OWN, "not now", "{\"rpcrew\":{\"executed\":\"no\"},\"left\":1}", CREW_EXECUTED_NO);
}

static crew_status fail_as_sent_twice(crew_call *call)
{
    const crew_error error = {
        .status = CREW_REMOTE_ERROR, .code = OWN, .executed = CREW_EXECUTED_UNKNOWN, .peer_message = "not now"
    };
    return crew_arg_bool(call, 0) ? crew_fail_from(call, NO_ANSWER, NULL, &error)
                                  : crew_fail_from(call, NO_ANSWER, NULL, NULL);
}

/* What was learnt of the execution counts, whatever the other service said of its part. */
static void what_is_not_known_of_the_execution_is_told(void **state)
{
    (void)state;
    assert_status(crew_client_call(to_front, "fail_as_sent_twice", NULL, &why, "[b]", true),
                  CREW_REMOTE_ERROR);
    assert_int_equal(why.code, OWN);
    assert_int_equal(why.executed, CREW_EXECUTED_UNKNOWN);
    assert_status(crew_client_call(to_front, "fail_as_sent_twice", NULL, &why, "[b]", false),
                  CREW_REMOTE_ERROR);
    assert_int_equal(why.code, NO_ANSWER);
    assert_int_equal(why.executed, CREW_EXECUTED_UNKNOWN);
}

static void all_else_is_one_s_own_error_and_says_what_was_executed(void **state)
{
    (void)state;
    fails_as("nothing", NO_ANSWER, "behind did not answer",
             "{\"rpcrew\":{\"executed\":\"no\",\"name\":\"NO_ANSWER\"}}", CREW_EXECUTED_NO);
    assert_string_equal(why.name, "NO_ANSWER");
    fails_as("hold", NO_ANSWER, "behind did not answer",
             "{\"rpcrew\":{\"executed\":\"unknown\",\"name\":\"NO_ANSWER\"}}", CREW_EXECUTED_UNKNOWN);
    gate_open(&gate);
}

static void the_caller_s_time_bounds_a_batch_of_calls(void **state)
{
    (void)state;
    crew_result *result;
    int64_t had;
    const crew_call_options brief = { .timeout_ms = 5000 };
    assert_ok_why(crew_client_call_with(to_front, &brief, "ask_many", &result, &why, NULL), why);
    assert_ok(crew_value_int(crew_result_value(result), &had));
    assert_true(had > 0 && had <= 5000); /* and not the client's 30,000 */
    crew_result_free(result);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_error_of_the_other_service_is_passed_on, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_known_of_the_execution_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(all_else_is_one_s_own_error_and_says_what_was_executed, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(the_caller_s_time_bounds_a_batch_of_calls, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
