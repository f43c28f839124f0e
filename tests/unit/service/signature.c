#include "support/colour.h"
#include "support/test.h"

#include "service/signature.h"

static crew_arena arena;
static const crew_custom_type *const types[] = { &colour_type, NULL };

static int teardown(void **state)
{
    (void)state;
    crew_arena_fini(&arena);
    return 0;
}

static struct crew_signature parse(const char *text)
{
    struct crew_signature signature;
    crew_error why;
    assert_ok_why(crew_signature_parse(text, types, &arena, &signature, &why), why);
    return signature;
}

static void the_grammar_is_read(void **state)
{
    (void)state;
    struct crew_signature s = parse("  minuend:number  list:array? rest:any... ");
    assert_int_equal(s.count, 3);
    assert_true(crew_string_equal(s.params[0].name, crew_str("minuend")));
    assert_int_equal(s.params[0].declared.type, CREW_PARAM_NUMBER);
    assert_true(s.params[1].optional && !s.params[1].variadic);
    assert_true(s.params[2].variadic);
    assert_int_equal(parse("").count, 0);
    assert_false(parse("").unchecked);
    assert_true(parse(NULL).unchecked);
}

static void bad_signatures_say_what_is_wrong(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "a", "not name:type" },
        { "a:", "no type ''" },
        { ":int", "not name:type" },
        { "a:number b:nubmer", "'b': no type 'nubmer'" },
        { "a:int a:int", "twice" },
        { "a:int? b:int", "wants a ?" },
        { "a:int... b:int", "behind ..." },
        { "a,b:int", "not name:type" },
        { "a:int??", "no type 'int?'" },
        { "a:int=", "default '' is no int" },
        { "a:int=x", "default 'x' is no int" },
        { "a:int=1.5", "default '1.5' is no int" },
        { "a:uint=-1", "default '-1' is no uint" },
        { "a:string=x", "default 'x' is no string in JSON, without spaces" },
        { "a:string=\"x y\"", "no string" },
        { "a:any=null", "is no any" },
        { "a:int?=1", "no default goes with ?" },
        { "a:int...=1", "no default goes with ?" },
        { "a:bytes=\"\"", "no default goes with" },
        { "a:int=1 b:int", "wants a ? or =default" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct crew_signature signature;
        crew_error why;
        assert_status(crew_signature_parse(cases[i][0], NULL, &arena, &signature, &why), CREW_BAD_ARGUMENT);
        assert_contains(why.message, cases[i][1]);
    }
}

static const char *bind(const char *signature_text, const char *params_text);

static void defaults_stand_for_what_is_not_given(void **state)
{
    (void)state;
    static const char signature[] =
        "a:int limit:uint=10 order:string=\"name\" all:bool=false list:array=[1,2] more:any?";
    assert_string_equal(bind(signature, "[1]"), "1 10 \"name\" false [1,2] -");
    assert_string_equal(bind(signature, "[1,5]"), "1 5 \"name\" false [1,2] -");
    assert_string_equal(bind(signature, "[1,null,\"x\"]"), "1 10 \"x\" false [1,2] -");
    assert_string_equal(bind(signature, "{\"a\":1,\"all\":true}"), "1 10 \"name\" true [1,2] -");
    assert_string_equal(bind("a:number=1.5", NULL), "1.5");
    assert_contains(bind(signature, "[1,-5]"), "'limit' wants");
}

/* The bound arguments as a JSON array; "-" for one that is not given. Or the error's text. */
static const char *bind(const char *signature_text, const char *params_text)
{
    struct crew_signature signature = parse(signature_text);
    const crew_value *params = params_text ? parse_json(&arena, params_text) : NULL, *data = NULL;
    struct crew_arguments arguments;
    crew_error why;
    crew_buffer out = { 0 };
    if (crew_signature_bind(&signature, params, true, &arena, &arguments, &data, &why) != CREW_OK) {
        assert_int_equal(why.status, CREW_MISMATCH);
        assert_non_null(data);
        return crew_arena_string(&arena, crew_str(why.message)).data;
    }
    for (size_t i = 0; i < arguments.count; i++)
        crew_buffer_printf(&out, "%s%s", i ? " " : "",
                           arguments.items[i] ? json_of(&arena, arguments.items[i]) : "-");
    return crew_buffer_move(&out, &arena).data;
}

static void positional_and_named_params_bind_alike(void **state)
{
    (void)state;
    assert_string_equal(bind("a:int b:string", "[1,\"x\"]"), "1 \"x\"");
    assert_string_equal(bind("a:int b:string", "{\"b\":\"x\",\"a\":1}"), "1 \"x\"");
    assert_string_equal(bind("a:int b:string? c:any?", "[1]"), "1 - -");
    assert_string_equal(bind("a:int b:string? c:any?", "{\"a\":1,\"c\":null}"), "1 - null");
    assert_string_equal(bind("a:int b:string?", "[1,null]"), "1 -");
    assert_string_equal(bind("a:int rest:int...", "[1,2,3]"), "1 2 3");
    assert_string_equal(bind("a:int rest:int...", "[1]"), "1");
    assert_string_equal(bind("a:int rest:int...", "{\"rest\":[2,3],\"a\":1}"), "1 2 3");
    assert_string_equal(bind("a:int rest:int...", "{\"a\":1}"), "1");
    assert_string_equal(bind("", NULL), "");
    assert_string_equal(bind(NULL, "[1,[2]]"), "1 [2]");
}

static void every_type_takes_what_fits_it(void **state)
{
    (void)state;
    static const struct {
        const char *type, *good, *bad;
    } cases[] = {
        { "bool", "[true,false]", "[0,null,\"true\",{}]" },
        { "int", "[0,-5,42.0,9223372036854775807]", "[42.5,\"1\",true,null,1e19,[]]" },
        { "uint", "[0,42.0]", "[-1,0.5,\"1\",-1.0]" },
        { "number", "[0,-1.5]", "[\"1\",null,false]" },
        { "string", "[\"\",\"x\"]", "[1,null,[]]" },
        { "bytes", "[\"\",\"Zm8=\"]", "[1,null,\"Zm8\",\"?\"]" },
        { "array", "[[],[1]]", "[{},1]" },
        { "object", "[{}]", "[[],null]" },
        { "any", "[null,1,[]]", "[]" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char signature[32];
        (void)snprintf(signature, sizeof signature, "p:%s", cases[i].type);
        const crew_value *good = parse_json(&arena, cases[i].good), *bad = parse_json(&arena, cases[i].bad);
        for (size_t j = 0; j < crew_value_count(good); j++) {
            const crew_value *params;
            assert_ok(crew_pack(&arena, &params, "[o]", crew_value_at(good, j)));
            assert_null(strstr(bind(signature, json_of(&arena, params)), "wants"));
        }
        for (size_t j = 0; j < crew_value_count(bad); j++) {
            const crew_value *params;
            assert_ok(crew_pack(&arena, &params, "[o]", crew_value_at(bad, j)));
            assert_contains(bind(signature, json_of(&arena, params)), "param 'p' wants ");
        }
    }
}

static void errors_name_the_param_and_what_was_expected(void **state)
{
    (void)state;
    assert_string_equal(bind("a:int b:string", "[1,2]"), "param 'b' wants a string, not int");
    assert_string_equal(bind("a:int", "[1e19]"), "param 'a' wants an int, not an integer beyond int64");
    assert_string_equal(bind("a:int b:int", "[1]"), "param 'b' is missing");
    assert_string_equal(bind("a:int b:int", "{\"b\":1}"), "param 'a' is missing");
    assert_string_equal(bind("a:int", "[1,2]"), "2 params, but it takes 1");
    assert_string_equal(bind("a:int", "{\"a\":1,\"x\":1}"), "there is no param 'x'");
    assert_string_equal(bind("a:int...", "{\"a\":1}"), "param 'a' wants an array of its values");
    assert_string_equal(bind("a:int...", "[1,\"x\"]"), "param 'a' wants an int, not string");
}

static void converted_arguments_have_the_declared_type(void **state)
{
    (void)state;
    struct crew_signature signature = parse("i:int b:bytes");
    struct crew_arguments arguments;
    const crew_value *data;
    crew_string bytes;
    assert_ok(crew_signature_bind(&signature, parse_json(&arena, "[42.0,\"AAE=\"]"), true, &arena, &arguments,
                                  &data, NULL));
    assert_int_equal(crew_value_type(arguments.items[0]), CREW_TYPE_INT);
    assert_int_equal(crew_value_type(arguments.items[1]), CREW_TYPE_BYTES);
    assert_ok(crew_value_bytes(arguments.items[1], &bytes));
    assert_int_equal(bytes.size, 2);
    assert_memory_equal(bytes.data, "\0\1", 2);
    assert_ok(crew_signature_bind(&signature, parse_json(&arena, "[1,\"AAE=\"]"), false, &arena, &arguments,
                                  &data, NULL));
    assert_ok(crew_value_bytes(arguments.items[1], &bytes)); /* a wire with bytes: the string's own */
    assert_true(crew_string_equal(bytes, crew_str("AAE=")));
}

/* The red parts of the bound arguments, "-" for one that is no colour or not given. Or the error's text. */
static const char *bind_colours(const char *signature_text, const char *params_text)
{
    struct crew_signature signature = parse(signature_text);
    const crew_value *data = NULL;
    struct crew_arguments arguments;
    crew_error why;
    crew_buffer out = { 0 };
    if (crew_signature_bind(&signature, parse_json(&arena, params_text), true, &arena, &arguments, &data,
                            &why) != CREW_OK)
        return crew_arena_string(&arena, crew_str(why.message)).data;
    for (size_t i = 0; i < arguments.count; i++) {
        const struct colour *colour = arguments.objects ? arguments.objects[i] : NULL;
        crew_buffer_printf(&out, colour ? "%s%u" : "%s-", i ? " " : "", colour ? colour->red : 0);
    }
    return crew_buffer_move(&out, &arena).data;
}

static void types_of_the_service_s_own_are_bound(void **state)
{
    (void)state;
    assert_string_equal(bind_colours("a:colour n:int b:colour?", "[\"#010000\",5]"), "1 - -");
    assert_string_equal(
        bind_colours("a:colour n:int b:colour?", "{\"b\":\"#020000\",\"n\":5,\"a\":\"#010000\"}"), "1 - 2");
    assert_string_equal(bind_colours("a:colour?", "[null]"), "-");
    assert_string_equal(bind_colours("n:int all:colour...", "[1,\"#010000\",\"#020000\"]"), "- 1 2");
    assert_string_equal(bind_colours("all:colour...", "{\"all\":[\"#010000\",\"#020000\"]}"), "1 2");
    assert_string_equal(bind_colours("n:int", "[1]"), "-");
    assert_string_equal(bind_colours("a:colour", "[5]"), "param 'a' wants a colour, not int");
    assert_string_equal(bind_colours("a:colour", "[\"red\"]"),
                        "param 'a' wants a colour, not a string that is none");
    assert_string_equal(bind_colours("a:colour", "[]"), "param 'a' is missing");
}

static void types_that_are_none_are_refused(void **state)
{
    (void)state;
    crew_custom_type no_name = colour_type, bad_name = colour_type, taken = colour_type, base = colour_type,
                     size = colour_type, function = colour_type, bytes = colour_type, null = colour_type;
    no_name.name = NULL;
    bad_name.name = "dark red";
    taken.name = "string";
    base.base = "text";
    bytes.base = "bytes";
    null.name = "null";
    size.size = 0;
    function.from_value = NULL;
    const crew_custom_type twice = colour_type;
    const struct {
        const crew_custom_type *list[3];
        const char *words;
    } cases[] = {
        { { &no_name }, "letters, digits" },
        { { &bad_name }, "'dark red': its name" },
        { { &taken }, "already" },
        { { &base }, "its base is one of" },
        { { &bytes }, "its base is one of" },
        { { &null }, "already" },
        { { &size }, "wants a size" },
        { { &function }, "both functions" },
        { { &colour_type, &twice }, "there is one of this name already" },
    };
    crew_error why;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_status(crew_custom_types_check(cases[i].list, &why), CREW_BAD_ARGUMENT);
        assert_contains(why.message, cases[i].words);
    }
    assert_ok(crew_custom_types_check(types, &why));
    assert_ok(crew_custom_types_check(NULL, &why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_grammar_is_read),
        cmocka_unit_test(bad_signatures_say_what_is_wrong),
        cmocka_unit_test(defaults_stand_for_what_is_not_given),
        cmocka_unit_test(positional_and_named_params_bind_alike),
        cmocka_unit_test(every_type_takes_what_fits_it),
        cmocka_unit_test(errors_name_the_param_and_what_was_expected),
        cmocka_unit_test(converted_arguments_have_the_declared_type),
        cmocka_unit_test(types_of_the_service_s_own_are_bound),
        cmocka_unit_test(types_that_are_none_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
