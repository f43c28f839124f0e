#include "support/colour.h"
#include "support/test.h"

static crew_status who(crew_call *call)
{
    crew_string name = crew_call_method(call);
    return crew_reply(call, "[S,s?]", name, (const char *)crew_call_context(call));
}

static char own[] = "own", first[] = "first";

static const crew_method methods[] = { { "who", who, "" }, { "other", who, "n:int?" }, { 0 } };
static const crew_service service = { .name = "test", .methods = methods, .context = own };

static crew_dispatcher *dispatcher;

static int setup(void **state)
{
    (void)state;
    return crew_dispatcher_new(&dispatcher) == CREW_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    crew_dispatcher_free(dispatcher);
    return 0;
}

static const char *answer(const char *method, const char *params)
{
    static char text[800];
    char request[300];
    crew_bytes bytes;
    (void)snprintf(request, sizeof request, "{\"jsonrpc\":\"2.0\",\"method\":\"%s\",\"params\":%s,\"id\":1}",
                   method, params);
    assert_ok(crew_handle(dispatcher, crew_str(request), NULL, &bytes));
    (void)snprintf(text, sizeof text, "%.*s", (int)bytes.size, (const char *)bytes.data);
    crew_bytes_free(&bytes);
    return text;
}

static void services_mount_under_prefixes_with_a_context_each(void **state)
{
    (void)state;
    assert_ok(crew_dispatcher_add(dispatcher, "a.", &service, first, NULL));
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    assert_contains(answer("a.who", "[]"), "[\"a.who\",\"first\"]");
    assert_contains(answer("who", "[]"), "[\"who\",\"own\"]");
    assert_contains(answer("b.who", "[]"), "-32601");
}

static void a_taken_name_adds_nothing_of_the_service(void **state)
{
    (void)state;
    static const crew_method clash[] = { { "fresh", who, "" }, { "other", who, "" }, { 0 } };
    static const crew_service second = { .name = "clash", .methods = clash };
    crew_error why;
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    assert_status(crew_dispatcher_add(dispatcher, "", &second, NULL, &why), CREW_EXISTS);
    assert_contains(why.message, "'other'");
    assert_contains(answer("fresh", "[]"), "-32601");
    assert_contains(answer("other", "[1]"), "\"result\"");
}

static void bad_tables_are_refused_with_the_method_s_name(void **state)
{
    (void)state;
    static const crew_method bad[][2] = { { { "rpc.mine", who, "" }, { 0 } },
                                          { { "", who, "" }, { 0 } },
                                          { { "m", NULL, "" }, { 0 } },
                                          { { "m", who, "x:what" }, { 0 } },
                                          { { "m", who, "", "what" }, { 0 } } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        crew_service one = { .name = "bad", .methods = bad[i] };
        crew_error why;
        assert_status(crew_dispatcher_add(dispatcher, "", &one, NULL, &why), CREW_BAD_ARGUMENT);
        assert_contains(why.message, bad[i][0].name);
    }
}

static crew_status mix(crew_call *call)
{
    const struct colour *a = crew_arg_custom(call, 0), *b = crew_arg_custom(call, 1);
    if (!b)
        return crew_fail(call, 5, NULL);
    const struct colour mixed = { (a->red + b->red) / 2, (a->green + b->green) / 2, (a->blue + b->blue) / 2 };
    return crew_reply(call, "t", &colour_type, &mixed);
}

static crew_status fail_with(crew_call *call)
{
    crew_string words = crew_arg_string(call, 1);
    return crew_fail_value(call, crew_arg_int(call, 0), words.size ? words : (crew_string){ 0 },
                           crew_arg(call, 2));
}

static const crew_custom_type *const colours[] = { &colour_type, NULL };
static const crew_service_error errors[] = { { 5, "ONE_ALONE", "one colour cannot be mixed" },
                                             { -5, "OTHER", "something else" },
                                             { 0 } };
static const crew_method mixing[] = { { "mix", mix, "a:colour b:colour?", "colour" },
                                      { "fail_with", fail_with, "code:int words:string? data:any?" },
                                      { 0 } };
static const crew_service mixer = { .name = "mixer", .methods = mixing, .types = colours, .errors = errors };

static void types_of_the_service_s_own_are_the_same_on_both_wires(void **state)
{
    (void)state;
    crew_bytes bytes;
    assert_ok(crew_dispatcher_add(dispatcher, "", &mixer, NULL, NULL));
    assert_contains(answer("mix", "[\"#000000\",\"#ff0204\"]"), "\"result\":\"#7f0102\"");
    assert_contains(answer("mix", "{\"b\":\"#ff0204\",\"a\":\"#000000\"}"), "\"result\":\"#7f0102\"");
    assert_contains(answer("mix", "[7]"), "param 'a' wants a colour, not int");
    static const char request[] = "\x94\x00\x01\xa3mix\x92\xa7#000000\xa7#ff0204";
    static const char reply[] = "\x94\x01\x01\xc0\xa7#7f0102";
    assert_ok(crew_handle(dispatcher, (crew_string){ request, sizeof request - 1 }, NULL, &bytes));
    assert_int_equal(bytes.size, sizeof reply - 1);
    assert_memory_equal(bytes.data, reply, bytes.size);
    crew_bytes_free(&bytes);
}

static void a_service_s_errors_have_names(void **state)
{
    (void)state;
    assert_ok(crew_dispatcher_add(dispatcher, "", &mixer, NULL, NULL));
    assert_contains(answer("mix", "[\"#000000\"]"),
                    "\"error\":{\"code\":5,\"message\":\"one colour cannot be mixed\","
                    "\"data\":{\"rpcrew\":{\"name\":\"ONE_ALONE\"}}}");
    assert_contains(answer("fail_with", "[-5,\"my words\"]"),
                    "\"message\":\"my words\",\"data\":{\"rpcrew\":{\"name\":\"OTHER\"}}");
    assert_contains(answer("fail_with", "[-5,\"\",{\"mine\":1}]"),
                    "\"message\":\"something else\",\"data\":{\"mine\":1,\"rpcrew\":{\"name\":\"OTHER\"}}");
    assert_contains(answer("fail_with", "[-5,\"\",[1]]"), "\"data\":[1]}");
    assert_contains(answer("fail_with", "[-5,\"\",{\"rpcrew\":1}]"), "\"data\":{\"rpcrew\":1}}");
    assert_contains(answer("fail_with", "[6,\"no row\"]"), "{\"code\":6,\"message\":\"no row\"}");
    assert_contains(answer("fail_with", "[6]"), "{\"code\":6,\"message\":\"error\"}");
    assert_contains(answer("fail_with", "[-32602]"), "{\"code\":-32602,\"message\":\"Invalid params\"}");
}

static crew_status fail_at_length(crew_call *call)
{
    char text[601];
    for (size_t i = 0; i < 600; i += 2)
        memcpy(text + i, "\xC3\xBC", 2);
    text[600] = '\0';
    return crew_fail(call, 1, "%s%s", crew_arg_given(call, 0) ? "x" : "", text);
}

static void a_long_text_is_cut_at_a_character(void **state)
{
    (void)state;
    static const crew_method lengthy[] = { { "fail_at_length", fail_at_length, "more:any?" }, { 0 } };
    static const crew_service one = { .methods = lengthy };
    assert_ok(crew_dispatcher_add(dispatcher, "", &one, NULL, NULL));
    for (int i = 0; i < 2; i++) {
        const char *text = answer("fail_at_length", i ? "[1]" : "[]");
        assert_contains(text, "\xC3\xBC\"}");
        assert_null(strchr(text, '?'));
    }
}

static void tables_of_errors_that_are_none_are_refused(void **state)
{
    (void)state;
    static const struct {
        crew_service_error rows[3];
        const char *words;
    } cases[] = {
        { { { 1, NULL, "m" }, { 0 } }, "error 1: its name" },
        { { { 1, "", "m" }, { 0 } }, "error 1: its name" },
        { { { 1, "NO ROOM", "m" }, { 0 } }, "error 1: its name" },
        { { { 1, "A234567890123456789012345678901234567890", "m" }, { 0 } }, "at most 39" },
        { { { 1, "A", NULL }, { 0 } }, "'A' has no message" },
        { { { -32000, "A", "m" }, { 0 } }, "-32768 to -32000" },
        { { { 1, "A", "m" }, { 1, "B", "m" } }, "'A' has the same code" },
        { { { 1, "A", "m" }, { 2, "A", "m" } }, "'A' has the same name" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const crew_service one = { .name = "bad", .methods = methods, .errors = cases[i].rows };
        crew_error why;
        assert_status(crew_dispatcher_add(dispatcher, "", &one, NULL, &why), CREW_BAD_ARGUMENT);
        assert_contains(why.message, cases[i].words);
    }
    static const crew_method other[] = { { "another", who, "" }, { 0 } };
    const crew_service same_names = { .name = "same", .methods = other, .errors = errors };
    crew_error why;
    assert_ok(crew_dispatcher_add(dispatcher, "", &mixer, NULL, NULL));
    assert_status(crew_dispatcher_add(dispatcher, "", &same_names, NULL, &why), CREW_EXISTS);
    assert_contains(why.message, "'ONE_ALONE' is there already");
    assert_ok(crew_dispatcher_add(dispatcher, "same.", &same_names, NULL, &why));
    assert_ok(crew_dispatcher_add(dispatcher, "again.", &mixer, NULL, &why));
    static const crew_service_error clash[] = { { 7, "same_OTHER", "m" }, { 0 } };
    const crew_service same_key = { .name = "key", .methods = other, .errors = clash };
    assert_ok(crew_dispatcher_add(dispatcher, "same/", &(crew_service){ .methods = other, .errors = errors },
                                  NULL, &why));
    assert_status(crew_dispatcher_add(dispatcher, "", &same_key, NULL, &why), CREW_EXISTS);
}

static void many_methods_are_all_found(void **state)
{
    (void)state;
    enum { MANY = 500 };
    static crew_method many[MANY + 1];
    static char names[MANY][16];
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(names[i], sizeof names[i], "method%d", i);
        many[i] = (crew_method){ .name = names[i], .handler = who };
    }
    crew_service large = { .name = "large", .methods = many };
    assert_ok(crew_dispatcher_add(dispatcher, "", &large, NULL, NULL));
    for (int i = 0; i < MANY; i++)
        assert_contains(answer(names[i], "[]"), names[i]);
}

static crew_status guard(crew_call *call, void *context)
{
    int *seen = context;
    (*seen)++;
    if (crew_arg_int(call, 0) == 13)
        return crew_fail(call, 403, "not %d", 13);
    return crew_call_proceed(call);
}

static void the_wrapper_is_around_every_call_and_may_refuse(void **state)
{
    (void)state;
    int seen = 0;
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    crew_dispatcher_wrap(dispatcher, guard, &seen);
    assert_contains(answer("other", "[1]"), "\"result\"");
    assert_contains(answer("other", "[13]"), "{\"code\":403,\"message\":\"not 13\"}");
    assert_contains(answer("other", "[\"x\"]"), "-32602");
    assert_contains(answer("nobody", "[]"), "-32601");
    assert_int_equal(seen, 2);
}

static void handling_answers_bytes_with_bytes(void **state)
{
    (void)state;
    crew_bytes answer_bytes = { 0 };
    assert_ok(crew_dispatcher_add(dispatcher, "", &service, NULL, NULL));
    assert_ok(
        crew_handle(dispatcher, crew_str("{\"jsonrpc\":\"2.0\",\"method\":\"who\"}"), NULL, &answer_bytes));
    assert_int_equal(answer_bytes.size, 0);
    assert_null(answer_bytes.data);
    assert_status(crew_handle(dispatcher, crew_str("hello"), NULL, &answer_bytes), CREW_UNSUPPORTED);
    crew_handle_options json = { .content_type = "application/json" };
    assert_ok(crew_handle(dispatcher, crew_str("hello"), &json, &answer_bytes));
    assert_true(answer_bytes.size > 0);
    crew_bytes_free(&answer_bytes);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(services_mount_under_prefixes_with_a_context_each),
        TEST(a_taken_name_adds_nothing_of_the_service),
        TEST(bad_tables_are_refused_with_the_method_s_name),
        TEST(types_of_the_service_s_own_are_the_same_on_both_wires),
        TEST(a_service_s_errors_have_names),
        TEST(tables_of_errors_that_are_none_are_refused),
        TEST(a_long_text_is_cut_at_a_character),
        TEST(many_methods_are_all_found),
        TEST(the_wrapper_is_around_every_call_and_may_refuse),
        TEST(handling_answers_bytes_with_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
