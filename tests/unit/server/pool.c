/* The pool: every piece of work once, by however many threads, and by turns between peers. */
#include "support/gate.h"
#include "support/test.h"

#include "core/thread.h"
#include "server/pool.h"

#include <poll.h>
#include <stdatomic.h>

enum { MANY = 1000 };

static struct gate gate = GATE_INITIALIZER;
static struct crew_pool pool;
static crew_peer *peers[3];
static atomic_uint begun[MANY];  /* messages, by their number, which is their correlation */
static struct crew_job jobs[20]; /* of the messages that have calls: in their order */
static size_t calls[20];

/* In which order calls began: the number of the job. */
static atomic_uint order_count;
static unsigned order[MANY];

static void start(crew_message *message, crew_arena *scratch)
{
    unsigned number = message->correlation;
    crew_peer *peer = crew_peer_hold(message->peer);
    atomic_fetch_add(&begun[number], 1);
    crew_message_free(message);
    if (number < sizeof calls / sizeof *calls && calls[number]) {
        jobs[number] = (struct crew_job){ .wire = { .count = calls[number] } };
        assert_true(crew_pool_take_on(&pool, &jobs[number], peer, true, scratch));
    } else {
        gate_pass(&gate);
    }
    crew_peer_release(peer);
}

static void run(struct crew_job *job, size_t index, crew_arena *scratch)
{
    (void)index;
    (void)scratch;
    order[atomic_fetch_add(&order_count, 1) % MANY] = (unsigned)(job - jobs);
    gate_pass(&gate);
}

static const struct crew_pool_work work = { start, run };

static void submit(crew_peer *peer, unsigned first, unsigned count)
{
    crew_list list = { 0 };
    for (unsigned i = first; i < first + count; i++) {
        crew_message *message = crew_message_new();
        message->correlation = i;
        message->peer = crew_peer_hold(peer);
        crew_list_append(&list, message);
    }
    crew_pool_submit(&pool, &list);
    assert_int_equal(list.count, 0);
}

static int setup(void **state)
{
    (void)state;
    gate_reset(&gate);
    atomic_store(&order_count, 0);
    for (size_t i = 0; i < MANY; i++)
        atomic_store(&begun[i], 0);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        calls[i] = 0;
    for (size_t i = 0; i < sizeof peers / sizeof *peers; i++)
        peers[i] = crew_peer_new(NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof peers / sizeof *peers; i++) {
        assert_int_equal(atomic_load(&peers[i]->holds), 1);
        crew_peer_release(peers[i]);
    }
    return 0;
}

static void open_pool(unsigned slots, unsigned spare)
{
    assert_ok(crew_pool_init(&pool, slots, spare, &work, NULL));
}

static void close_pool(void)
{
    crew_pool_stop(&pool);
    crew_pool_fini(&pool);
}

static void as_many_handlers_run_as_there_are_slots(void **state)
{
    (void)state;
    open_pool(3, 0);
    for (unsigned i = 0; i < 6; i++)
        calls[i] = 1;
    submit(peers[0], 0, 6);
    assert_true(gate_await(&gate, 3));
    submit(peers[0], 100, 1); /* no handler's: there is a thread for it */
    assert_true(gate_await(&gate, 4));
    for (unsigned i = 0; i < 6; i++) /* and all are decoded */
        assert_int_equal(atomic_load(&begun[i]), 1);
    assert_int_equal(atomic_load(&order_count), 3);
    gate_open(&gate);
    assert_true(gate_await(&gate, 7));
    close_pool();
}

static void every_message_is_started_once(void **state)
{
    (void)state;
    gate_open(&gate);
    open_pool(4, 0);
    for (unsigned i = 0; i < MANY; i += 100)
        submit(peers[i % 3], i, 100);
    assert_true(gate_await(&gate, MANY));
    close_pool();
    for (size_t i = 0; i < MANY; i++)
        assert_int_equal(atomic_load(&begun[i]), 1);
}

static void peers_take_turns_call_by_call(void **state)
{
    (void)state;
    open_pool(1, 0);
    calls[0] = 500; /* the greedy one's batch */
    calls[1] = 1;
    calls[2] = 2;
    submit(peers[0], 0, 1);
    assert_true(gate_await(&gate, 1)); /* its first call runs */
    submit(peers[1], 1, 1);
    submit(peers[2], 2, 1);
    submit(peers[0], 100, 1);
    assert_true(gate_await(&gate, 2)); /* what was submitted before that is decoded */
    gate_open(&gate);
    assert_true(gate_await(&gate, 500 + 1 + 2 + 1));
    close_pool();
    size_t last = 0;
    for (size_t i = 0; i < 503; i++)
        if (order[i] != 0)
            last = i;
    assert_true(last <= 6); /* whatever the greedy one still has */
}

static void messages_of_others_are_decoded_in_between(void **state)
{
    (void)state;
    crew_arena scratch = { 0 };
    gate_open(&gate);
    open_pool(0, 0); /* stepped, so that the order is seen */
    submit(peers[0], 0, 10);
    submit(peers[1], 10, 1);
    submit(peers[2], 11, 1);
    for (int i = 0; i < 3; i++)
        assert_true(crew_pool_step(&pool, &scratch));
    assert_int_equal(atomic_load(&begun[0]), 1);
    assert_int_equal(atomic_load(&begun[10]), 1);
    assert_int_equal(atomic_load(&begun[11]), 1);
    assert_int_equal(atomic_load(&begun[1]), 0);
    close_pool();
}

static void one_slot_keeps_their_order(void **state)
{
    (void)state;
    gate_open(&gate);
    open_pool(1, 0);
    for (int round = 0; round < 50; round++) {
        atomic_store(&order_count, 0);
        for (unsigned i = 0; i < 20; i++)
            calls[i] = 1;
        submit(peers[0], 0, 20);
        assert_true(gate_await(&gate, 20 * (unsigned)(round + 1)));
        for (unsigned i = 0; i < 20; i++)
            assert_int_equal(order[i], i);
    }
    close_pool();
}

static void what_nobody_has_started_can_be_taken_back(void **state)
{
    (void)state;
    crew_list back = { 0 };
    struct crew_job *unbegun;
    peers[0]->requeue = CREW_REQUEUE_FIRST;
    open_pool(1, 0);
    calls[0] = calls[1] = calls[3] = 1;
    calls[2] = 3;
    submit(peers[0], 0, 3);
    submit(peers[1], 3, 1); /* this one's cannot be given back */
    submit(peers[0], 100, 1);
    assert_true(gate_await(&gate, 2)); /* 0 runs, and 100: so no thread is left for more */
    submit(peers[0], 101, 5);
    assert_int_equal(crew_pool_waiting(&pool), 5 + 1 + 3 + 1); /* messages; calls of 1, 2, 3 */
    crew_pool_take_back(&pool, CREW_REQUEUE_FIRST, &back, &unbegun);
    assert_int_equal(crew_pool_waiting(&pool), 1);
    assert_int_equal(back.count, 5);
    assert_int_equal(back.head->correlation, 101);
    assert_ptr_equal(unbegun, &jobs[1]);
    assert_ptr_equal(unbegun->next, &jobs[2]);
    assert_null(unbegun->next->next);
    crew_list_free(&back);
    gate_open(&gate);
    assert_true(gate_await(&gate, 3)); /* the other peer's */
    close_pool();
    assert_int_equal(gate_entered(&gate), 3);
}

static void stopping_waits_for_what_runs(void **state)
{
    (void)state;
    unsigned started = 0;
    open_pool(2, 0);
    submit(peers[0], 0, 50);
    assert_true(gate_await(&gate, 3)); /* slots are for handlers */
    gate_open(&gate);
    crew_pool_stop(&pool);
    unsigned entered = gate_entered(&gate);
    for (size_t i = 0; i < 50; i++)
        started += atomic_load(&begun[i]);
    assert_int_equal(started, entered); /* none is between its beginning and its end */
    crew_pool_fini(&pool);              /* the rest is freed, not begun */
    assert_int_equal(gate_entered(&gate), entered);
}

/* ---- handlers that wait for calls of their own ---- */

static struct gate inner = GATE_INITIALIZER;
static atomic_uint most_at_a_time, at_a_time;

/* The first four wait for the last four. */
static void run_nested(struct crew_job *job, size_t index, crew_arena *scratch)
{
    (void)index;
    (void)scratch;
    if (job - jobs < 4) {
        gate_pass(&gate); /* all four are here at once */
        crew_thread_begin_wait();
        gate_pass(&inner);
        crew_thread_end_wait();
        return;
    }
    unsigned now = atomic_fetch_add(&at_a_time, 1) + 1;
    if (now > atomic_load(&most_at_a_time))
        atomic_store(&most_at_a_time, now);
    gate_pass(&gate);
    atomic_fetch_sub(&at_a_time, 1);
}

static void a_handler_that_waits_gives_its_slot_up(void **state)
{
    (void)state;
    static const struct crew_pool_work nested = { start, run_nested };
    gate_reset(&inner);
    assert_ok(crew_pool_init(&pool, 4, 4, &nested, NULL));
    for (unsigned i = 0; i < 10; i++)
        calls[i] = 1;
    submit(peers[0], 0, 4);
    assert_true(gate_await(&gate, 4));
    submit(peers[0], 4, 4);
    gate_open(&gate);
    assert_true(gate_await(&inner, 4));
    assert_true(gate_await(&gate, 8)); /* the inner ones run while the outer ones wait for them */
    assert_true(atomic_load(&most_at_a_time) <= 4);
    gate_open(&inner);
    submit(peers[0], 8, 2);
    assert_true(gate_await(&gate, 10));
    close_pool();
}

static bool is_back_to_its_size(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&pool.mutex);
    bool is = pool.alive == 3 && !pool.blocked && !pool.running;
    pthread_mutex_unlock(&pool.mutex);
    return is;
}

static void spare_threads_are_bounded_and_go_again(void **state)
{
    (void)state;
    static const struct crew_pool_work nested = { start, run_nested };
    gate_reset(&inner);
    gate_open(&gate);
    assert_ok(crew_pool_init(&pool, 2, 1, &nested, NULL));
    for (unsigned i = 0; i < 4; i++)
        calls[i] = 1;
    submit(peers[0], 0, 4);
    assert_true(gate_await(&inner, 3)); /* two slots and the thread beside them, and one more cannot be had */
    pthread_mutex_lock(&pool.mutex);
    assert_true(pool.alive <= 4);
    pthread_mutex_unlock(&pool.mutex);
    submit(peers[1], 100, 1); /* however many wait, there is a thread for what comes */
    assert_true(gate_await(&gate, 4));
    gate_open(&inner);
    assert_true(gate_await(&inner, 4));
    assert_true(eventually(is_back_to_its_size, NULL));
    close_pool();
}

static struct gate behind = GATE_INITIALIZER;

static void run_and_return(struct crew_job *job, size_t index, crew_arena *scratch)
{
    run_nested(job, index, scratch);
    if (job - jobs < 4)
        gate_pass(&behind);
}

static bool wants_its_slot_again(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&pool.mutex);
    bool does = pool.returning == 1;
    pthread_mutex_unlock(&pool.mutex);
    return does;
}

static void a_handler_goes_on_when_there_is_a_slot_again(void **state)
{
    (void)state;
    static const struct crew_pool_work nested = { start, run_and_return };
    gate_reset(&inner);
    gate_reset(&behind);
    assert_ok(crew_pool_init(&pool, 1, 1, &nested, NULL));
    calls[0] = calls[4] = calls[5] = 1;
    submit(peers[0], 0, 1);
    assert_true(gate_await(&gate, 1));
    gate_let(&gate, 1);
    assert_true(gate_await(&inner, 1)); /* it waits */
    submit(peers[0], 4, 2);
    assert_true(gate_await(&gate, 2)); /* another has the slot */
    gate_open(&inner);
    assert_true(eventually(wants_its_slot_again, NULL));
    assert_int_equal(gate_entered(&behind), 0);
    gate_let(&gate, 1);
    assert_true(gate_await(&behind, 1)); /* before the one that has not begun */
    assert_int_equal(gate_entered(&gate), 2);
    gate_open(&behind);
    assert_true(gate_await(&gate, 3));
    gate_open(&gate);
    close_pool();
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
    open_pool(0, 0);
    assert_false(readable(pool.fd));
    assert_false(crew_pool_step(&pool, &scratch));
    calls[1] = 2;
    submit(peers[0], 0, 2);
    static const size_t waiting[] = { 2, 1, 2, 1 }; /* the second message becomes two calls */
    for (size_t step = 0; step < sizeof waiting / sizeof *waiting; step++) {
        assert_int_equal(crew_pool_waiting(&pool), waiting[step]);
        assert_true(readable(pool.fd));
        assert_true(crew_pool_step(&pool, &scratch));
    }
    assert_int_equal(crew_pool_waiting(&pool), 0);
    assert_false(readable(pool.fd));
    assert_false(crew_pool_step(&pool, &scratch));
    close_pool();
    crew_arena_fini(&scratch);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(as_many_handlers_run_as_there_are_slots),
        TEST(every_message_is_started_once),
        TEST(peers_take_turns_call_by_call),
        TEST(messages_of_others_are_decoded_in_between),
        TEST(one_slot_keeps_their_order),
        TEST(what_nobody_has_started_can_be_taken_back),
        TEST(stopping_waits_for_what_runs),
        TEST(a_handler_that_waits_gives_its_slot_up),
        TEST(spare_threads_are_bounded_and_go_again),
        TEST(a_handler_goes_on_when_there_is_a_slot_again),
        TEST(without_threads_it_is_stepped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
