/* The outbox of a link: what is written is what was put in, whatever the socket takes at a time. */
#include "support/test.h"

#include "transport/amqp_link_impl.h"

#include <sys/socket.h>
#include <unistd.h>

enum { FRAME_MAX = 4096 };

static struct amqp_link out_link;
static int peer;
static crew_buffer stream; /* what has come out so far */

static int setup(void **state)
{
    (void)state;
    int ends[2], small = 4096;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    out_link = (struct amqp_link){ .fd = ends[0], .frame_max = FRAME_MAX };
    peer = ends[1];
    stream = (crew_buffer){ 0 };
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(out_link.fd);
    close(peer);
    crew_buffer_fini(&out_link.outbox);
    crew_buffer_fini(&stream);
    return 0;
}

/* Takes up to so many bytes out of the peer's end. */
static size_t take(size_t most)
{
    char bytes[1000];
    ssize_t size = recv(peer, bytes, most < sizeof bytes ? most : sizeof bytes, MSG_DONTWAIT);
    if (size <= 0)
        return 0;
    crew_buffer_append(&stream, bytes, (size_t)size);
    return (size_t)size;
}

static void drain(void)
{
    do
        assert_ok(amqp_link_flush(&out_link));
    while (take(1000) || out_link.outbox.size);
}

static bool publish(const char *key, char fill, size_t size)
{
    static char body[100000];
    memset(body, fill, size);
    return amqp_link_publish(&out_link, &(struct amqp_publish){ .channel = AMQP_CALLS,
                                                                .exchange = "",
                                                                .routing_key = crew_str(key),
                                                                .expiration_ms = -1,
                                                                .body = { body, size } });
}

struct frame {
    int type, channel;
    crew_string payload;
};

/* The next frame of the stream, of which *at bytes have been read. */
static struct frame next_frame(size_t *at)
{
    const unsigned char *bytes = (const unsigned char *)stream.data + *at;
    assert_true(stream.size >= *at + 8);
    size_t size = (size_t)bytes[3] << 24 | (size_t)bytes[4] << 16 | (size_t)bytes[5] << 8 | bytes[6];
    assert_true(size + 8 <= FRAME_MAX);
    assert_true(stream.size >= *at + size + 8);
    assert_int_equal(bytes[7 + size], 0xCE);
    *at += size + 8;
    return (struct frame){ bytes[0], bytes[1] << 8 | bytes[2], { (const char *)bytes + 7, size } };
}

/* Reads a publish: method, header, and the body in frames; each byte of that is fill. */
static void expect_publish(size_t *at, char fill, size_t size)
{
    assert_int_equal(next_frame(at).type, AMQP_FRAME_METHOD);
    struct frame header = next_frame(at);
    assert_int_equal(header.type, AMQP_FRAME_HEADER);
    for (size_t got = 0; got < size;) {
        struct frame body = next_frame(at);
        assert_int_equal(body.type, AMQP_FRAME_BODY);
        assert_int_equal(body.channel, AMQP_CALLS);
        for (size_t i = 0; i < body.payload.size; i++)
            assert_int_equal(body.payload.data[i], fill);
        got += body.payload.size;
        assert_true(got <= size);
    }
}

static void frames_come_out_whole_and_in_order(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 1, 100, FRAME_MAX - 9, FRAME_MAX - 8, FRAME_MAX - 7, 50000, 3 };
    enum { SIZES = sizeof sizes / sizeof *sizes };
    size_t at = 0;
    for (int i = 0; i < SIZES; i++)
        assert_true(publish("queue", (char)('a' + i), sizes[i]));
    assert_true(amqp_link_ack(&out_link, 7));
    uint64_t queued = amqp_link_queued(&out_link);
    drain();
    for (int i = 0; i < SIZES; i++)
        expect_publish(&at, (char)('a' + i), sizes[i]);
    assert_int_equal(next_frame(&at).payload.size, 4 + 9); /* basic.ack: tag, multiple */
    assert_int_equal(at, stream.size);
    assert_int_equal(amqp_link_written(&out_link), queued);
    assert_int_equal(stream.size, queued);
}

static void under_steady_load_it_does_not_grow(void **state)
{
    (void)state;
    size_t most = 0, at = 0;
    enum { ROUNDS = 3000, SIZE = 900 };
    for (int i = 0; i < ROUNDS; i++) { /* never empty, and always some on the way */
        assert_true(publish("queue", 'x', SIZE));
        assert_ok(amqp_link_flush(&out_link));
        while (out_link.outbox.size - out_link.sent > 20000 && take(1000))
            assert_ok(amqp_link_flush(&out_link));
        most = out_link.outbox.size > most ? out_link.outbox.size : most;
    }
    assert_true(most < 100000);
    drain();
    for (int i = 0; i < ROUNDS; i++)
        expect_publish(&at, 'x', SIZE);
    assert_int_equal(at, stream.size);
}

static void what_cannot_be_encoded_leaves_nothing_behind(void **state)
{
    (void)state;
    char name[300];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    size_t at = 0;
    assert_true(publish("queue", 'a', 10));
    assert_false(publish(name, 'b', 10));
    assert_true(publish("queue", 'c', 10));
    drain();
    expect_publish(&at, 'a', 10);
    expect_publish(&at, 'c', 10);
    assert_int_equal(at, stream.size);
    assert_int_equal(amqp_link_queued(&out_link), stream.size);
}

static void while_the_broker_has_an_alarm_nothing_is_written(void **state)
{
    (void)state;
    out_link.blocked = true;
    assert_true(publish("queue", 'a', 10));
    assert_ok(amqp_link_flush(&out_link));
    assert_int_equal(take(1000), 0);
    assert_false(amqp_link_writable(&out_link));
    out_link.blocked = false;
    drain();
    assert_true(amqp_link_writable(&out_link));
    size_t at = 0;
    expect_publish(&at, 'a', 10);
}

static void a_peer_that_has_gone_is_noticed(void **state)
{
    (void)state;
    close(peer);
    peer = -1;
    assert_true(publish("queue", 'a', 10));
    assert_status(amqp_link_flush(&out_link), CREW_DISCONNECTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(frames_come_out_whole_and_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(under_steady_load_it_does_not_grow, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_encoded_leaves_nothing_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(while_the_broker_has_an_alarm_nothing_is_written, setup, teardown),
        cmocka_unit_test_setup_teardown(a_peer_that_has_gone_is_noticed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
