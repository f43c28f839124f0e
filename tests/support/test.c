#include "support/test.h"

#include "support/fake_broker.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

const crew_value *parse_json(crew_arena *arena, const char *text)
{
    const crew_value *value = NULL;
    crew_error why;
    assert_ok_why(crew_json_decode(crew_str(text), NULL, arena, &value, &why), why);
    return value;
}

const char *json_of(crew_arena *arena, const crew_value *value)
{
    crew_bytes text;
    assert_ok(crew_json_encode(value, CREW_JSON_COMPACT, &text));
    const char *copy = crew_arena_string(arena, (crew_string){ text.data, text.size }).data;
    crew_bytes_free(&text);
    return copy;
}

bool json_covers(const crew_value *expected, const crew_value *got)
{
    crew_type type = crew_value_type(expected);
    if (type != crew_value_type(got))
        return false;
    if (type == CREW_TYPE_ARRAY) {
        bool same = crew_value_count(expected) == crew_value_count(got);
        for (size_t i = 0; same && i < crew_value_count(expected); i++)
            same = json_covers(crew_value_at(expected, i), crew_value_at(got, i));
        return same;
    }
    if (type != CREW_TYPE_OBJECT)
        return crew_value_equal(expected, got);
    for (size_t i = 0; i < crew_value_count(expected); i++) {
        crew_string key;
        assert_ok(crew_value_string(crew_value_key_at(expected, i), &key));
        const crew_value *member = crew_value_get(got, key.data);
        if (!member || !json_covers(crew_value_at(expected, i), member))
            return false;
    }
    return true;
}

bool eventually(bool (*what)(void *context), void *context)
{
    for (int i = 0; i < 2000; i++) {
        if (what(context))
            return true;
        (void)poll(NULL, 0, 5);
    }
    return what(context);
}

/* One that nobody uses, and that nobody is given before it is listened on: outside of those that the kernel
 * hands out to whoever connects or asks for any. */
static int free_port(void)
{
    int first = 0, last = 0;
    FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    assert_true(file && fscanf(file, "%d %d", &first, &last) == 2);
    (void)fclose(file);
    const int lowest = 10000, highest = first > lowest + 1000 ? first - 1 : UINT16_MAX;
    for (int i = 0; i < 10000; i++) {
        uint16_t port;
        assert_int_equal(getrandom(&port, sizeof port, 0), sizeof port);
        if (port < lowest || port > highest)
            continue;
        struct sockaddr_in address = { .sin_family = AF_INET,
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                       .sin_port = htons(port) };
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool free = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
        close(fd);
        if (free)
            return port;
    }
    fail_msg("no port is free");
    return 0;
}

/* The first line, or with TLS the second, of the broker's file. */
static void broker_url(char *out, size_t room, bool tls)
{
    const char *name = getenv("RPCREW_BROKER");
    FILE *file = name ? fopen(name, "r") : NULL;
    if (!file || !fgets(out, (int)room, file) || (tls && !fgets(out, (int)room, file)))
        fail_msg("RPCREW_BROKER names no file with a broker's URLs");
    (void)fclose(file);
    out[strcspn(out, "\n")] = '\0';
}

/* The program's own, from its first use to the end. */
static struct fake_broker *fake;

static void stop_the_fake(void)
{
    fake_stop(fake);
}

static const struct fake_broker *the_fake(void)
{
    if (!fake) {
        fake = fake_start(NULL);
        (void)atexit(stop_the_fake);
    }
    return fake;
}

const char *test_url(const char *pattern)
{
    static char url[1200];
    static int count;
    size_t size = 0;
    while (*pattern && size < sizeof url - 200) {
        if (*pattern != '{') {
            url[size++] = *pattern++;
            continue;
        }
        if (strncmp(pattern, "{port}", 6) == 0)
            (void)snprintf(url + size, 200, "%d", free_port());
        else if (strncmp(pattern, "{new}", 5) == 0)
            (void)snprintf(url + size, 200, "%d-%d", (int)getpid(), ++count);
        else if (strncmp(pattern, "{fake}", 6) == 0)
            (void)snprintf(url + size, 200, "%s", fake_url(the_fake()));
        else
            broker_url(url + size, 200, strncmp(pattern, "{brokers}", 9) == 0);
        size += strlen(url + size);
        pattern = strchr(pattern, '}') + 1;
    }
    url[size] = '\0';
    return url;
}
