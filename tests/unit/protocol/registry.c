#include "support/test.h"

#include <rpcrew/impl/protocol.h>

static const char *protocol_of(const char *content_type, const char *bytes)
{
    const crew_protocol *protocol = crew_protocol_of(content_type, crew_str(bytes));
    return protocol ? protocol->name : "none";
}

static void the_content_type_decides(void **state)
{
    (void)state;
    assert_string_equal(protocol_of("application/json", ""), "jsonrpc");
    assert_string_equal(protocol_of("Application/JSON; charset=utf-8", ""), "jsonrpc");
    assert_string_equal(protocol_of("application/json-rpc", "x"), "jsonrpc");
    assert_string_equal(protocol_of("application/msgpack", "{}"), "msgpack");
    assert_string_equal(protocol_of("application/x-msgpack", ""), "msgpack");
}

static void without_a_known_one_the_first_bytes_do(void **state)
{
    (void)state;
    assert_string_equal(protocol_of(NULL, " \r\n\t{"), "jsonrpc");
    assert_string_equal(protocol_of("text/plain", "[1]"), "jsonrpc");
    assert_string_equal(protocol_of("", "{}"), "jsonrpc");
    assert_string_equal(protocol_of(NULL, "\x94"), "msgpack");
    assert_string_equal(protocol_of("text/plain", "\x90"), "msgpack");
    assert_string_equal(protocol_of(NULL, "\xdd"), "msgpack");
    assert_string_equal(protocol_of(NULL, "\x80"), "none");
    assert_string_equal(protocol_of(NULL, ""), "none");
    assert_string_equal(protocol_of(NULL, "hello"), "none");
}

static void protocols_are_found_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; crew_protocol_at(i); i++)
        assert_ptr_equal(crew_protocol_find(crew_protocol_at(i)->name), crew_protocol_at(i));
    assert_null(crew_protocol_find("carrier pigeon"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_content_type_decides),
        cmocka_unit_test(without_a_known_one_the_first_bytes_do),
        cmocka_unit_test(protocols_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
