/* What every test includes: cmocka, the library, and asserts that name statuses. */
#ifndef SUPPORT_TEST_H
#define SUPPORT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <rpcrew.h>
#include <rpcrew/impl/memory.h>

#include <stdio.h>
#include <stdlib.h>

#define assert_status(expression, expected) \
    assert_string_equal(crew_status_name(expression), crew_status_name(expected))
#define assert_ok(expression) assert_status(expression, CREW_OK)

/* The expression is CREW_OK, or the error's message is shown. */
#define assert_ok_why(expression, why)                                         \
    do {                                                                       \
        crew_status status_ = (expression);                                    \
        if (status_ != CREW_OK)                                                \
            print_error("%s: %s\n", crew_status_name(status_), (why).message); \
        assert_int_equal(status_, CREW_OK);                                    \
    } while (0)

#define assert_contains(text, part)                          \
    do {                                                     \
        if (!strstr((text), (part)))                         \
            fail_msg("'%s' is not in '%s'", (part), (text)); \
    } while (0)

/* JSON text to a value; the text must be good. */
const crew_value *parse_json(crew_arena *arena, const char *text);

/* A value as JSON text, in the arena. */
const char *json_of(crew_arena *arena, const crew_value *value);

/* Whether got has all that expected has: the same values, arrays of the same length, and every member of
 * expected's objects. */
bool json_covers(const crew_value *expected, const crew_value *got);

/* A URL with {port} replaced by a TCP port of 127.0.0.1 that nobody uses, {new} by a number that is another
 * one each time, in every process, {fake} by the URL of a broker in this process, and {broker} and {brokers}
 * by the URL, plain and with TLS, of the tests' RabbitMQ, from the file that RPCREW_BROKER names. Static,
 * until the next call. */
const char *test_url(const char *pattern);

/* Waits until what() is true, for ten seconds at most; false then. */
bool eventually(bool (*what)(void *context), void *context);

#endif
