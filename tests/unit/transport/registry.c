#include "support/test.h"

#include <rpcrew/impl/transport.h>

static void transports_are_found_by_scheme(void **state)
{
    (void)state;
    assert_null(crew_transport_find("pigeon"));
    for (size_t i = 0; crew_transport_at(i); i++) {
        assert_ptr_equal(crew_transport_find(crew_transport_at(i)->scheme), crew_transport_at(i));
        assert_non_null(crew_transport_at(i)->check);
    }
}

static bool carries(const char *text, const char *content_type)
{
    crew_url *url;
    assert_ok(crew_url_parse(text, &url, NULL));
    const crew_transport *transport = crew_transport_find(crew_url_scheme(url));
    bool answer = !transport->carries || transport->carries(url, content_type);
    crew_url_free(url);
    return answer;
}

static void what_a_transport_carries_depends_on_its_framing(void **state)
{
    (void)state;
    assert_true(carries("inproc://a", "application/msgpack"));
    assert_true(carries("tcp://a:1", "application/msgpack"));
    assert_true(carries("tcp://a:1", "application/json"));
    assert_false(carries("tcp://a:1?framing=lines", "application/msgpack"));
    assert_true(carries("tcp://a:1?framing=lines", "application/json"));
    assert_false(carries("unix:///a?framing=msgpack", "application/json"));
    assert_true(carries("unix:///a?framing=content-length", "application/msgpack"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transports_are_found_by_scheme),
        cmocka_unit_test(what_a_transport_carries_depends_on_its_framing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
