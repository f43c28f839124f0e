#include "support/test.h"

#include "core/queue.h"
#include "core/thread.h"

#include <poll.h>
#include <signal.h>

static bool readable(int fd)
{
    return poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, 0) == 1;
}

static void add(crew_list *list, uint32_t n)
{
    crew_message *m = crew_message_new();
    m->correlation = n;
    crew_list_append(list, m);
}

static void its_fd_is_readable_while_something_is_there(void **state)
{
    (void)state;
    crew_queue queue;
    crew_list list = { 0 }, got = { 0 };
    assert_ok(crew_queue_init(&queue, 0, NULL));
    assert_false(readable(queue.fd));
    add(&list, 1);
    assert_ok(crew_queue_push(&queue, &list));
    assert_int_equal(list.count, 0);
    assert_true(readable(queue.fd));
    crew_queue_take(&queue, &got);
    assert_int_equal(got.count, 1);
    assert_false(readable(queue.fd));
    crew_queue_wake(&queue);
    assert_true(readable(queue.fd));
    crew_list_free(&got);
    crew_queue_fini(&queue);
}

static void beyond_its_limit_nothing_is_taken(void **state)
{
    (void)state;
    crew_queue queue;
    crew_list list = { 0 };
    assert_ok(crew_queue_init(&queue, 2, NULL));
    for (uint32_t i = 0; i < 3; i++)
        add(&list, i);
    assert_status(crew_queue_push(&queue, &list), CREW_OVERLOADED);
    assert_int_equal(list.count, 3);
    crew_message_free(crew_list_take(&list));
    assert_ok(crew_queue_push(&queue, &list));
    crew_queue_fini(&queue);
}

enum { PUSHERS = 4, EACH = 2000 };

static void *push_many(void *argument)
{
    crew_queue *queue = argument;
    for (uint32_t i = 0; i < EACH; i++) {
        crew_list one = { 0 };
        add(&one, i);
        if (crew_queue_push(queue, &one) != CREW_OK)
            abort();
    }
    return NULL;
}

static void nothing_is_lost_between_threads_and_no_wake_up_is_missed(void **state)
{
    (void)state;
    crew_queue queue;
    pthread_t threads[PUSHERS];
    assert_ok(crew_queue_init(&queue, 0, NULL));
    for (int i = 0; i < PUSHERS; i++)
        assert_ok(crew_thread_start(&threads[i], "push", push_many, &queue, NULL));
    size_t total = 0;
    while (total < PUSHERS * EACH) {
        crew_list got = { 0 };
        assert_int_equal(poll(&(struct pollfd){ .fd = queue.fd, .events = POLLIN }, 1, 10000), 1);
        crew_queue_take(&queue, &got);
        total += got.count;
        crew_list_free(&got);
    }
    for (int i = 0; i < PUSHERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(total, PUSHERS * EACH);
    crew_queue_fini(&queue);
}

static void *read_mask(void *mask)
{
    (void)pthread_sigmask(SIG_SETMASK, NULL, mask);
    return NULL;
}

static void our_threads_are_deaf_to_signals(void **state)
{
    (void)state;
    pthread_t thread;
    sigset_t theirs, own;
    assert_ok(crew_thread_start(&thread, "deaf", read_mask, &theirs, NULL));
    pthread_join(thread, NULL);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &own);
    assert_true(sigismember(&theirs, SIGTERM) && sigismember(&theirs, SIGINT) &&
                sigismember(&theirs, SIGPIPE));
    assert_false(sigismember(&own, SIGTERM));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_fd_is_readable_while_something_is_there),
        cmocka_unit_test(beyond_its_limit_nothing_is_taken),
        cmocka_unit_test(nothing_is_lost_between_threads_and_no_wake_up_is_missed),
        cmocka_unit_test(our_threads_are_deaf_to_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
