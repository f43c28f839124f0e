/* The pool: every message once, by however many threads. */
#include "support/gate.h"
#include "support/test.h"

#include "server/pool.h"

#include <poll.h>
#include <stdatomic.h>

static struct gate gate = GATE_INITIALIZER;
static struct crew_pool pool;
static atomic_uint started[1000];

/* The message's correlation is its number. */
static void start(crew_message *message, crew_arena *scratch)
{
    (void)scratch;
    atomic_fetch_add(&started[message->correlation], 1);
    crew_message_free(message);
    gate_pass(&gate);
}

static void submit(unsigned first, unsigned count)
{
    crew_list list = { 0 };
    for (unsigned i = first; i < first + count; i++) {
        crew_message *message = crew_message_new();
        message->correlation = i;
        crew_list_append(&list, message);
    }
    crew_pool_submit(&pool, &list);
    assert_int_equal(list.count, 0);
}

static int setup(void **state)
{
    (void)state;
    gate_reset(&gate);
    for (size_t i = 0; i < sizeof started / sizeof *started; i++)
        atomic_store(&started[i], 0);
    return 0;
}

static void threads_work_at_the_same_time(void **state)
{
    (void)state;
    assert_ok(crew_pool_init(&pool, 4, start, NULL));
    submit(0, 4);
    assert_true(gate_await(&gate, 4)); /* all four are in it, so four threads are */
    gate_open(&gate);
    crew_pool_stop(&pool);
    crew_pool_fini(&pool);
}

static void every_message_is_started_once(void **state)
{
    (void)state;
    gate_open(&gate);
    assert_ok(crew_pool_init(&pool, 4, start, NULL));
    for (unsigned i = 0; i < 1000; i += 100)
        submit(i, 100);
    assert_true(gate_await(&gate, 1000));
    crew_pool_stop(&pool);
    crew_pool_fini(&pool);
    for (size_t i = 0; i < 1000; i++)
        assert_int_equal(atomic_load(&started[i]), 1);
}

static void what_nobody_has_started_can_be_taken_back(void **state)
{
    (void)state;
    crew_list back = { 0 };
    assert_ok(crew_pool_init(&pool, 1, start, NULL));
    submit(0, 5);
    assert_true(gate_await(&gate, 1));
    crew_pool_take_back(&pool, &back);
    assert_int_equal(back.count, 4);
    assert_int_equal(back.head->correlation, 1);
    crew_list_free(&back);
    gate_open(&gate);
    crew_pool_stop(&pool);
    crew_pool_fini(&pool);
    assert_int_equal(gate_entered(&gate), 1);
}

static void stopping_waits_for_what_runs(void **state)
{
    (void)state;
    unsigned begun = 0;
    assert_ok(crew_pool_init(&pool, 2, start, NULL));
    submit(0, 50);
    assert_true(gate_await(&gate, 2));
    gate_open(&gate);
    crew_pool_stop(&pool);
    unsigned entered = gate_entered(&gate);
    for (size_t i = 0; i < 50; i++)
        begun += atomic_load(&started[i]);
    assert_int_equal(begun, entered); /* none is between its beginning and its end */
    crew_pool_fini(&pool);            /* the rest is freed, not begun */
    assert_int_equal(gate_entered(&gate), entered);
}

static bool readable(int fd)
{
    struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
    return poll(&poll_fd, 1, 0) == 1;
}

static void without_threads_it_is_stepped(void **state)
{
    (void)state;
    crew_arena scratch = { 0 };
    gate_open(&gate);
    assert_ok(crew_pool_init(&pool, 0, start, NULL));
    assert_false(readable(pool.fd));
    assert_false(crew_pool_step(&pool, &scratch));
    submit(0, 2);
    assert_true(readable(pool.fd));
    assert_true(crew_pool_step(&pool, &scratch));
    assert_true(readable(pool.fd));
    assert_true(crew_pool_step(&pool, &scratch));
    assert_false(readable(pool.fd));
    assert_false(crew_pool_step(&pool, &scratch));
    crew_pool_stop(&pool);
    crew_pool_fini(&pool);
    crew_arena_fini(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(threads_work_at_the_same_time, setup),
        cmocka_unit_test_setup(every_message_is_started_once, setup),
        cmocka_unit_test_setup(what_nobody_has_started_can_be_taken_back, setup),
        cmocka_unit_test_setup(stopping_waits_for_what_runs, setup),
        cmocka_unit_test_setup(without_threads_it_is_stepped, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
