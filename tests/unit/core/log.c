#include "support/test.h"

#include "core/log.h"

#include <rpcrew/impl/message.h>

#include <fcntl.h>

#include <unistd.h>

static int ends[2];

static int setup(void **state)
{
    (void)state;
    return pipe(ends);
}

static int teardown(void **state)
{
    (void)state;
    crew_log_open(&(crew_log_options){ .level = CREW_LOG_OFF });
    close(ends[0]);
    close(ends[1]);
    return 0;
}

static const char *written(void)
{
    static char line[1000];
    ssize_t size = read(ends[0], line, sizeof line - 1);
    assert_true(size > 0);
    line[size] = '\0';
    return line;
}

static void open_as(crew_log_format format)
{
    crew_log_open(&(crew_log_options){ .level = CREW_LOG_INFO, .format = format, .fd = ends[1] });
}

static void silent_until_it_is_opened(void **state)
{
    (void)state;
    assert_false(crew_log_enabled(CREW_LOG_ERROR));
    assert_false(crew_log_enabled(CREW_LOG_OFF));
    open_as(CREW_LOG_TEXT);
    assert_true(crew_log_enabled(CREW_LOG_INFO));
    assert_false(crew_log_enabled(CREW_LOG_DEBUG));
}

static void a_line_of_text_has_its_fields_behind_it(void **state)
{
    (void)state;
    open_as(CREW_LOG_TEXT);
    crew_log(CREW_LOG_INFO, "connection lost", "{s:s,s:i,s:s}", "endpoint", "a://b", "delay_ms", 5, "why",
             "no\nway");
    const char *line = written();
    assert_contains(line, "Z INFO  connection lost endpoint=a://b delay_ms=5 why=\"no\\nway\"\n");
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void logfmt_quotes_what_it_must(void **state)
{
    (void)state;
    open_as(CREW_LOG_LOGFMT);
    crew_log(CREW_LOG_WARN, "connection lost", "{s:s,s:b}", "empty", "", "yes", 1);
    assert_contains(written(), " level=warn msg=\"connection lost\" empty=\"\" yes=true\n");
}

static void a_json_line_is_one_object(void **state)
{
    (void)state;
    crew_arena arena = { 0 };
    open_as(CREW_LOG_JSON);
    crew_log(CREW_LOG_ERROR, "odd", "{s:s,s:[i,i]}", "text", "a\"b", "list", 1, 2);
    const crew_value *value = parse_json(&arena, written());
    assert_true(json_covers(
        parse_json(&arena, "{\"level\":\"error\",\"msg\":\"odd\",\"text\":\"a\\\"b\",\"list\":[1,2]}"),
        value));
    crew_log(CREW_LOG_ERROR, "plain", NULL);
    assert_int_equal(crew_value_count(parse_json(&arena, written())), 3);
    crew_arena_fini(&arena);
}

static void names_are_parsed_and_wrong_ones_explained(void **state)
{
    (void)state;
    crew_log_level level;
    crew_log_format format;
    crew_error why;
    assert_ok(crew_log_level_parse("debug", &level, &why));
    assert_int_equal(level, CREW_LOG_DEBUG);
    assert_ok(crew_log_format_parse("logfmt", &format, &why));
    assert_int_equal(format, CREW_LOG_LOGFMT);
    assert_status(crew_log_level_parse("loud", &level, &why), CREW_BAD_ARGUMENT);
    assert_string_equal(why.message, "no log level 'loud'; there are off, error, warn, info, debug");
}

static void a_log_that_nobody_reads_holds_nobody_up(void **state)
{
    (void)state;
    int pipe_ends[2];
    char bytes[4096] = { 0 };
    assert_int_equal(pipe(pipe_ends), 0);
    (void)fcntl(pipe_ends[1], F_SETFL, O_NONBLOCK);
    while (write(pipe_ends[1], bytes, sizeof bytes) > 0 || write(pipe_ends[1], bytes, 1) > 0)
        continue;
    (void)fcntl(pipe_ends[1], F_SETFL, 0);
    crew_log_open(&(crew_log_options){ .level = CREW_LOG_INFO, .fd = pipe_ends[1] });
    for (int i = 0; i < 3; i++)
        crew_log(CREW_LOG_INFO, "unread", NULL); /* or this would never end */
    (void)fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK);
    while (read(pipe_ends[0], bytes, sizeof bytes) > 0)
        continue;
    crew_log(CREW_LOG_INFO, "read", NULL);
    ssize_t size = read(pipe_ends[0], bytes, sizeof bytes - 1);
    assert_true(size > 0);
    bytes[size] = '\0';
    assert_contains(bytes, "3 lines were dropped");
    assert_contains(bytes, "read\n");
    assert_null(strstr(bytes, "unread"));
    crew_log_open(&(crew_log_options){ .level = CREW_LOG_OFF });
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

static void a_flood_of_lines_becomes_a_few_and_a_number(void **state)
{
    (void)state;
    struct crew_rate rate = { 0 };
    unsigned left_out = 1, allowed = 0;
    for (int i = 0; i < 25; i++)
        allowed += crew_rate_allows(&rate, &left_out);
    assert_int_equal(allowed, CREW_RATE_LINES);
    assert_int_equal(left_out, 0);
    assert_true(rate.until_ms - crew_now_ms() <= CREW_RATE_MS);
    rate.until_ms = crew_now_ms(); /* the while is over */
    assert_true(crew_rate_allows(&rate, &left_out));
    assert_int_equal(left_out, 25 - CREW_RATE_LINES);
    assert_true(crew_rate_allows(&rate, &left_out));
    assert_int_equal(left_out, 0);
}

/* A text of somebody else's is cut between characters, and what is empty is left out. */
static void a_line_holds_no_more_than_it_should(void **state)
{
    (void)state;
    char text[500], bytes[1000];
    int pipe_ends[2];
    struct crew_line line = { 0 };
    memset(text, 'x', sizeof text);
    memcpy(text + 399, "\xC3\xA9", 2);
    assert_int_equal(pipe(pipe_ends), 0);
    crew_log_open(&(crew_log_options){ .level = CREW_LOG_INFO, .fd = pipe_ends[1] });
    crew_line_text(&line, "long", (crew_string){ text, sizeof text });
    crew_line_text(&line, "none", (crew_string){ 0 });
    crew_line_number(&line, "n", -5);
    crew_line_log(&line, CREW_LOG_DEBUG, "not shown");
    crew_line_text(&line, "long", (crew_string){ text, sizeof text });
    crew_line_number(&line, "n", -5);
    crew_line_log(&line, CREW_LOG_INFO, "shown");
    ssize_t size = read(pipe_ends[0], bytes, sizeof bytes - 1);
    assert_true(size > 0);
    bytes[size] = '\0';
    text[399] = '\0';
    assert_contains(bytes, "shown long=x");
    assert_contains(bytes, text);
    assert_contains(bytes, "x n=-5\n");
    assert_null(strstr(bytes, "not shown"));
    assert_null(strstr(bytes, "none"));
    crew_log_open(&(crew_log_options){ .level = CREW_LOG_OFF });
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(silent_until_it_is_opened, setup, teardown),
        cmocka_unit_test_setup_teardown(a_line_of_text_has_its_fields_behind_it, setup, teardown),
        cmocka_unit_test_setup_teardown(logfmt_quotes_what_it_must, setup, teardown),
        cmocka_unit_test_setup_teardown(a_json_line_is_one_object, setup, teardown),
        cmocka_unit_test(a_log_that_nobody_reads_holds_nobody_up),
        cmocka_unit_test(a_flood_of_lines_becomes_a_few_and_a_number),
        cmocka_unit_test(a_line_holds_no_more_than_it_should),
        cmocka_unit_test(names_are_parsed_and_wrong_ones_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
