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

static void what_a_transport_carries_is_its_own_affair(void **state)
{
    (void)state;
    static const char *const lines[] = { "application/json", NULL };
    const crew_transport any = { .scheme = "any" }, some = { .scheme = "some", .content_types = lines };
    assert_true(crew_transport_carries(&any, "application/msgpack"));
    assert_true(crew_transport_carries(&some, "application/json"));
    assert_false(crew_transport_carries(&some, "application/msgpack"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(transports_are_found_by_scheme),
        cmocka_unit_test(what_a_transport_carries_is_its_own_affair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
