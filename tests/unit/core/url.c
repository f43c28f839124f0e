#include "support/test.h"

static crew_url *parse(const char *text)
{
    crew_url *url = NULL;
    crew_error why;
    assert_ok_why(crew_url_parse(text, &url, &why), why);
    return url;
}

static void all_parts_are_found_and_decoded(void **state)
{
    (void)state;
    crew_url *url = parse("amqp://us%40er:p%3Aw@a:5671,b,[::1]:1/my%2Fhost?queue=c%20d&flag&x=a=b");
    assert_string_equal(crew_url_scheme(url), "amqp");
    assert_string_equal(crew_url_user(url), "us@er");
    assert_string_equal(crew_url_password(url), "p:w");
    assert_int_equal(crew_url_host_count(url), 3);
    assert_string_equal(crew_url_host(url, 0), "a");
    assert_int_equal(crew_url_port(url, 0), 5671);
    assert_int_equal(crew_url_port(url, 1), 0);
    assert_string_equal(crew_url_host(url, 2), "::1");
    assert_int_equal(crew_url_port(url, 2), 1);
    assert_null(crew_url_host(url, 3));
    assert_string_equal(crew_url_path(url), "/my/host");
    assert_string_equal(crew_url_option(url, "queue"), "c d");
    assert_string_equal(crew_url_option(url, "flag"), "");
    assert_string_equal(crew_url_option(url, "x"), "a=b");
    assert_null(crew_url_option(url, "y"));
    crew_url_free(url);
}

static void little_is_enough(void **state)
{
    (void)state;
    crew_url *url = parse("zmq+ipc:///tmp/sock");
    assert_string_equal(crew_url_host(url, 0), "");
    assert_string_equal(crew_url_path(url), "/tmp/sock");
    assert_null(crew_url_user(url));
    crew_url_free(url);
    url = parse("zmq+tcp://*:5555");
    assert_string_equal(crew_url_host(url, 0), "*");
    assert_string_equal(crew_url_path(url), "");
    crew_url_free(url);
    crew_url_free(NULL);
}

static void the_text_has_no_password(void **state)
{
    (void)state;
    crew_url *url = parse("amqp://me:se:cret@host/?queue=x@y");
    assert_string_equal(crew_url_text(url), "amqp://me:***@host/?queue=x@y");
    crew_url_free(url);
    assert_ok(crew_url_parse("amqp://me@corp.com:secret@host/q", &url, NULL));
    assert_string_equal(crew_url_password(url), "secret");
    assert_string_equal(crew_url_text(url), "amqp://me@corp.com:***@host/q");
    crew_url_free(url);
    url = parse("amqp://me@host/a:b@c");
    assert_string_equal(crew_url_text(url), "amqp://me@host/a:b@c");
    crew_url_free(url);
    url = parse("zmq+tcp://[::1]:5555,b:1/");
    assert_string_equal(crew_url_text(url), "zmq+tcp://[::1]:5555,b:1/");
    crew_url_free(url);
    url = parse("amqp://user:12/secret@host");
    assert_null(strstr(crew_url_text(url), "secret"));
    crew_url_free(url);
    crew_error why;
    assert_status(crew_url_parse("amqp://user:s3cr/et@host", &url, &why), CREW_BAD_ARGUMENT);
    assert_null(strstr(why.message, "s3cr"));
    assert_null(strstr(why.message, "et@"));
    assert_status(crew_url_parse("amqp://me:secret@host:port/", &url, &why), CREW_BAD_ARGUMENT);
    assert_null(strstr(why.message, "secret"));
}

static void bad_urls_say_what_is_wrong(void **state)
{
    (void)state;
    static const char *const cases[][2] = { { "", "scheme://" },         { "localhost:5555", "scheme://" },
                                            { "://x", "scheme://" },     { "a://h:0", "port" },
                                            { "a://h:65536", "port" },   { "a://h:12x", "port" },
                                            { "a://h:", "port" },        { "a://[::1", "']'" },
                                            { "a://[::1]x", "rubbish" }, { "a://h/%4", "'%'" },
                                            { "a://h/%zz", "'%'" },      { "a://h/%00", "NUL" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        crew_url *url = NULL;
        crew_error why;
        assert_status(crew_url_parse(cases[i][0], &url, &why), CREW_BAD_ARGUMENT);
        assert_contains(why.message, cases[i][1]);
        assert_null(url);
    }
}

static void an_option_is_given_once_unless_it_repeats(void **state)
{
    (void)state;
    const crew_url_option_spec specs[] = { { "x", NULL, 0, 0, NULL, true }, { "y" }, { NULL } };
    crew_url *url;
    crew_error why;
    assert_ok(crew_url_parse("a://h?x=1&y=2&x=3", &url, NULL));
    assert_ok_why(crew_url_check(url, specs, NULL, &why), why);
    assert_string_equal(crew_url_option(url, "x"), "1");
    assert_string_equal(crew_url_option_at(url, "x", 1), "3");
    assert_null(crew_url_option_at(url, "x", 2));
    crew_url_free(url);
    assert_ok(crew_url_parse("a://h?y=1&y=1", &url, NULL));
    assert_status(crew_url_check(url, specs, NULL, &why), CREW_BAD_ARGUMENT);
    assert_contains(why.message, "twice");
    crew_url_free(url);
}

static void options_are_checked_against_what_a_transport_knows(void **state)
{
    (void)state;
    static const crew_url_option_spec specs[] = { { "mode", "bind|connect", 0, 0, "" },
                                                  { "count", NULL, 1, 10, "" },
                                                  { "name", NULL, 0, 0, "" },
                                                  { NULL, NULL, 0, 0, NULL } };
    static const struct {
        const char *text, *wrong;
    } cases[] = { { "a://h?mode=bind&count=10&name=anything", NULL },
                  { "a://h?colour=red", "there are mode, count, name" },
                  { "a://h?mode=bin", "bind|connect" },
                  { "a://h?mode=", "bind|connect" },
                  { "a://h?count=11", "1 to 10" },
                  { "a://h?count=0", "1 to 10" },
                  { "a://h?count=99999999999999999999999", "1 to 10" },
                  { "a://h?count=1x", "1 to 10" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        crew_url *url = parse(cases[i].text);
        crew_error why;
        crew_status status = crew_url_check(url, specs, NULL, &why);
        assert_status(status, cases[i].wrong ? CREW_BAD_ARGUMENT : CREW_OK);
        if (cases[i].wrong)
            assert_contains(why.message, cases[i].wrong);
        crew_url_free(url);
    }
    crew_url *url = parse("a://h?count=7");
    assert_int_equal(crew_url_number(url, "count", 3), 7);
    assert_int_equal(crew_url_number(url, "other", 3), 3);
    crew_url_free(url);
}

static void no_url_is_no_good_one(void **state)
{
    (void)state;
    crew_url *url;
    crew_client *client;
    crew_error why;
    assert_status(crew_url_parse(NULL, &url, &why), CREW_BAD_ARGUMENT);
    assert_string_equal(why.message, "no URL");
    assert_status(crew_client_new(&client, getenv("RPCREW_NOT_SET"), NULL, &why), CREW_BAD_ARGUMENT);
    assert_status(crew_client_new(&client, "", NULL, &why), CREW_BAD_ARGUMENT);
}

static void urls_are_not_endless(void **state)
{
    (void)state;
    crew_url *url = NULL;
    char text[6000] = "a://";
    memset(text + 4, 'x', sizeof text - 5);
    assert_status(crew_url_parse(text, &url, NULL), CREW_BAD_ARGUMENT);
    memset(text + 4, ',', 200);
    text[204] = '\0';
    assert_status(crew_url_parse(text, &url, NULL), CREW_BAD_ARGUMENT);
}

static void nothing_that_may_be_a_password_is_shown(void **state)
{
    (void)state;
    static const char *const texts[][2] = {
        { "amqp://user:SECRET@host/?queue=q", "amqp://user:***@host/?queue=q" },
        { "amqp://user:SEC?RET@host/?queue=q", "amqp://user:***@host/?queue=q" },
        { "amqp://user:SEC/RET@host/?queue=q", "amqp://user:***@host/?queue=q" },
        { "amqp://user:SEC@RET@host", "amqp://user:***@host" },
        { "amqp:/user:SECRET@host", "amqp:/user:***@host" },
        { "amqp://SECRET@host", "amqp://***@host" },
        { "user:SECRET@host", "user:***@host" },
        { "--lisen=amqp://user:SECRET@host", "--lisen=amqp://user:***@host" },
        { "amqp://host/?password=SECRET&queue=q", "amqp://host/?password=***&queue=q" },
        { "amqp://host/?queue=q&Auth_Token=SECRET", "amqp://host/?queue=q&Auth_Token=***" },
        { "amqp://host/?the password=SECRET&queue=q", "amqp://host/?the password=***&queue=q" },
        { "amqp://host/?password=SECRET and more", "amqp://host/?password=*** and more" },
        { "zmq+tcp://host:5555", "zmq+tcp://host:5555" },
        { "plain words", "plain words" },
        { "", "" },
    };
    char shown[100];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_string_equal(crew_redact(texts[i][0], shown, sizeof shown), texts[i][1]);
    assert_string_equal(crew_redact("amqp://user:SECRET@host", shown, 14), "amqp://user:*");
    crew_url *url = parse("amqp://host/?queue=q&secret=SECRET");
    assert_string_equal(crew_url_text(url), "amqp://host/?queue=q&secret=***");
    crew_url_free(url);
    url = parse("amqp://user:5672?RET@host/x");
    assert_string_equal(crew_url_text(url), "amqp://user:***@host/x");
    crew_url_free(url);
}

static void words_that_are_not_the_process_s_are_left_alone(void **state)
{
    (void)state;
    char secret[] = "amqp://me:secret@host";
    char *argv[] = { (char *)(uintptr_t)"a literal, which cannot be written to: a=b", secret, NULL };
    char **copy = crew_hide_words(2, argv);
    assert_non_null(copy);
    assert_string_equal(copy[0], argv[0]);
    assert_string_equal(copy[1], "amqp://me:secret@host");
    assert_null(copy[2]);
    assert_string_equal(secret, "amqp://me:secret@host");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_parts_are_found_and_decoded),
        cmocka_unit_test(little_is_enough),
        cmocka_unit_test(the_text_has_no_password),
        cmocka_unit_test(nothing_that_may_be_a_password_is_shown),
        cmocka_unit_test(bad_urls_say_what_is_wrong),
        cmocka_unit_test(an_option_is_given_once_unless_it_repeats),
        cmocka_unit_test(options_are_checked_against_what_a_transport_knows),
        cmocka_unit_test(no_url_is_no_good_one),
        cmocka_unit_test(urls_are_not_endless),
        cmocka_unit_test(words_that_are_not_the_process_s_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
