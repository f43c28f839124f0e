/* A program of one's own around a worker: texts under names, kept as files of a directory. It has flags of
 * its own, opens what it needs before it serves, refuses calls in a wrapper, and observes how long they take.
 *
 *   store --directory /var/lib/store --listen tcp://127.0.0.1:5555
 */
#include <rpcrew.h>

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { NOT_FOUND = 404, READ_ONLY = 403, NAME_MOST = 100, SLOW_MS = 100 };

struct store {
    const char *path;
    int directory;
    bool read_only;
};

/* ---- methods ---- */

/* The name with its end, if it is one: letters, digits, - and _. */
static bool read_name(crew_call *call, char name[NAME_MOST + 1])
{
    crew_string text = crew_arg_string(call, 0);
    bool good = text.size > 0 && text.size <= NAME_MOST;
    for (size_t i = 0; good && i < text.size; i++)
        good = isalnum((unsigned char)text.data[i]) || text.data[i] == '-' || text.data[i] == '_';
    if (good)
        (void)snprintf(name, NAME_MOST + 1, "%.*s", CREW_STR(text));
    return good;
}

static crew_status bad_name(crew_call *call)
{
    return crew_fail_param(call, 0, "wants 1 to %d letters, digits, - and _", NAME_MOST);
}

static crew_status get(crew_call *call)
{
    const struct store *store = crew_call_context(call);
    char name[NAME_MOST + 1], text[4096];
    if (!read_name(call, name))
        return bad_name(call);
    int fd = openat(store->directory, name, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text);
    if (fd >= 0)
        close(fd);
    return size < 0 ? crew_fail(call, NOT_FOUND, "there is nothing under '%s'", name)
                    : crew_reply_string(call, (crew_string){ text, (size_t)size });
}

/* Under another name first, so that nobody reads half of it. */
static crew_status put(crew_call *call)
{
    const struct store *store = crew_call_context(call);
    crew_string text = crew_arg_string(call, 1);
    char name[NAME_MOST + 1], temporary[NAME_MOST + 40];
    if (!read_name(call, name))
        return bad_name(call);
    if (text.size > 4096)
        return crew_fail_param(call, 1, "has more than 4096 bytes");
    (void)snprintf(temporary, sizeof temporary, ".%s.%p", name, (const void *)call);
    int fd = openat(store->directory, temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    bool written = fd >= 0 && write(fd, text.data, text.size) == (ssize_t)text.size;
    written = fd >= 0 && close(fd) == 0 && written;
    if (written && renameat(store->directory, temporary, store->directory, name) == 0)
        return crew_reply_null(call);
    (void)unlinkat(store->directory, temporary, 0);
    return CREW_SYSTEM;
}

static const crew_method methods[] = {
    { .name = "get",
      .handler = get,
      .params = "name:string",
      .result = "string",
      .doc = "The text under a name." },
    { .name = "put",
      .handler = put,
      .params = "name:string text:string",
      .result = "null",
      .doc = "Keeps a text." },
    { 0 },
};

/* ---- the program ---- */

static crew_status set_directory(void *context, const char *value, crew_error *why)
{
    struct store *store = context;
    (void)why;
    store->path = value;
    return CREW_OK;
}

static crew_status set_read_only(void *context, const char *value, crew_error *why)
{
    struct store *store = context;
    (void)value;
    (void)why;
    store->read_only = true;
    return CREW_OK;
}

static const crew_worker_flag flags[] = {
    { .name = "directory", .value = "DIR", .help = "where the texts are", .set = set_directory },
    { .name = "read-only", .help = "refuses put", .set = set_read_only },
    { 0 },
};

static crew_status prepare(void *context, crew_error *why)
{
    struct store *store = context;
    if (!store->path)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "wants --directory DIR");
    store->directory = open(store->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return store->directory < 0 ? crew_error_set(why, CREW_SYSTEM, "%s: %s", store->path, strerror(errno))
                                : CREW_OK;
}

static crew_status allow(crew_call *call, void *context)
{
    const struct store *store = context;
    if (store->read_only && crew_string_equal(crew_call_method(call), crew_str("put")))
        return crew_fail(call, READ_ONLY, "the store is read only");
    return crew_call_proceed(call);
}

static void note_slow(void *context, const crew_call_end *end)
{
    int64_t ms = (end->ended_ns - end->received_ns) / 1000000;
    (void)context;
    if (ms >= SLOW_MS)
        crew_log(CREW_LOG_WARN, "slow", "{s:S,s:I}", "method", end->method, "ms", ms);
}

static crew_status set_up(void *context, crew_dispatcher *dispatcher, crew_server *server, crew_error *why)
{
    const crew_server_hooks hooks = { .call = note_slow };
    crew_dispatcher_wrap(dispatcher, allow, context);
    return crew_server_observe(server, &hooks, why);
}

static void ended(void *context)
{
    const struct store *store = context;
    close(store->directory);
}

int main(int argc, char **argv)
{
    static const crew_service service = { .name = "store", .version = "1.0.0", .methods = methods };
    struct store store = { .directory = -1 };
    const crew_worker_options options = {
        .context = &store, .flags = flags, .prepare = prepare, .set_up = set_up, .ended = ended
    };
    return crew_worker_main_with(argc, argv, &service, &options);
}
