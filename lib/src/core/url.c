/* Endpoint URLs: parsing, options, and the text without its password. */
#include <rpcrew/impl/memory.h>
#include <rpcrew/url.h>

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum { URL_MAX = 4096, SHOWN_MAX = URL_MAX + 64, HOSTS_MAX = 64, OPTIONS_MAX = 64 };

struct host {
    const char *name;
    uint16_t port;
};

struct option {
    const char *name, *value;
};

struct crew_url {
    atomic_uint holds;
    crew_arena arena;
    const char *scheme, *user, *password, *path, *text;
    struct host hosts[HOSTS_MAX];
    size_t host_count;
    struct option options[OPTIONS_MAX];
    size_t option_count;
};

struct parser {
    crew_url *url;
    const char *text; /* without its password, for errors */
    crew_error *why;
};

static crew_status bad(struct parser *p, const char *what)
{
    return crew_error_set(p->why, CREW_BAD_ARGUMENT, "URL '%s': %s", p->text, what);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static crew_status decode(struct parser *p, crew_string part, const char **out)
{
    char *text = crew_arena_alloc(&p->url->arena, part.size + 1);
    if (!text)
        return CREW_NO_MEMORY;
    size_t size = 0;
    for (size_t i = 0; i < part.size; i++) {
        char c = part.data[i];
        if (c == '%') {
            bool enough = i + 2 < part.size;
            int high = enough ? hex_value(part.data[i + 1]) : -1;
            int low = enough ? hex_value(part.data[i + 2]) : -1;
            if (high < 0 || low < 0)
                return bad(p, "'%' wants two hexadecimal digits behind it");
            c = (char)(high << 4 | low);
            i += 2;
            if (c == '\0')
                return bad(p, "a NUL (%00) is not allowed");
        }
        text[size++] = c;
    }
    text[size] = '\0';
    *out = text;
    return CREW_OK;
}

/* The part up to any of stops, taken off the front of *rest. */
static crew_string take_until(crew_string *rest, const char *stops)
{
    size_t size = 0;
    while (size < rest->size && !strchr(stops, rest->data[size]))
        size++;
    crew_string part = { rest->data, size };
    rest->data += size;
    rest->size -= size;
    return part;
}

static bool take_char(crew_string *rest, char c)
{
    if (rest->size == 0 || rest->data[0] != c)
        return false;
    rest->data++;
    rest->size--;
    return true;
}

static crew_status parse_port(struct parser *p, crew_string text, uint16_t *port)
{
    unsigned number = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || number > 65535)
            return bad(p, "the port wants a number, 1 to 65535");
        number = number * 10 + (unsigned)(text.data[i] - '0');
    }
    if (number < 1 || number > 65535)
        return bad(p, "the port wants a number, 1 to 65535");
    *port = (uint16_t)number;
    return CREW_OK;
}

static crew_status parse_host(struct parser *p, crew_string text)
{
    crew_url *url = p->url;
    if (url->host_count == HOSTS_MAX)
        return bad(p, "more than 64 hosts");
    struct host *host = &url->hosts[url->host_count];
    crew_string name;
    if (take_char(&text, '[')) {
        name = take_until(&text, "]");
        if (!take_char(&text, ']'))
            return bad(p, "'[' without ']' in the host");
    } else {
        name = take_until(&text, ":");
    }
    crew_status status = decode(p, name, &host->name);
    if (status == CREW_OK && text.size)
        status = take_char(&text, ':') ? parse_port(p, text, &host->port) : bad(p, "rubbish behind ']'");
    if (status == CREW_OK)
        url->host_count++;
    return status;
}

static crew_status parse_authority(struct parser *p, crew_string text)
{
    size_t at = text.size;
    while (at > 0 && text.data[at - 1] != '@')
        at--;
    crew_status status = CREW_OK;
    if (at > 0) {
        crew_string login = { text.data, at - 1 };
        status = decode(p, take_until(&login, ":"), &p->url->user);
        if (status == CREW_OK && take_char(&login, ':'))
            status = decode(p, login, &p->url->password);
        text = (crew_string){ text.data + at, text.size - at };
    }
    do {
        if (status == CREW_OK)
            status = parse_host(p, take_until(&text, ","));
    } while (status == CREW_OK && take_char(&text, ','));
    return status;
}

/* Whether an option's name looks like one: else it may be a part of a password. */
static bool looks_right(const char *name)
{
    return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == strlen(name);
}

static const char *shown_name(const char *name)
{
    return looks_right(name) ? name : "***";
}

static crew_status parse_options(struct parser *p, crew_string text)
{
    crew_url *url = p->url;
    while (text.size) {
        crew_string pair = take_until(&text, "&");
        take_char(&text, '&');
        if (pair.size == 0)
            continue;
        if (url->option_count == OPTIONS_MAX)
            return bad(p, "more than 64 options");
        struct option *option = &url->options[url->option_count];
        crew_status status = decode(p, take_until(&pair, "="), &option->name);
        take_char(&pair, '=');
        if (status == CREW_OK)
            status = decode(p, pair, &option->value);
        if (status != CREW_OK)
            return status;
        url->option_count++;
    }
    return CREW_OK;
}

/* The URL as written, its password as "***". What looks like a password with a '/' in it, which should have
 * been written as %2F, is one too. */
static const char *redact(crew_arena *arena, const char *text)
{
    const char *authority = strstr(text, "://");
    const char *start = authority ? authority + 3 : text;
    const char *at = start + strcspn(start, "/?");
    while (at > start && at[-1] != '@')
        at--;
    bool in_authority = at > start;
    if (!in_authority) {
        at = start + strcspn(start, "?");
        while (at > start && at[-1] != '@')
            at--;
    }
    /* A user's name may hold an '@' itself: the last one is where the host begins, as in parse_authority. */
    size_t user_and_password = in_authority ? (size_t)(at - 1 - start) : strcspn(start, "/?@");
    const char *colon = at > start ? memchr(start, ':', user_and_password) : NULL;
    crew_buffer out = { 0 };
    if (colon) {
        crew_buffer_append(&out, text, (size_t)(colon + 1 - text));
        crew_buffer_text(&out, "***@");
        text = at;
    }
    /* What an option hands on to others may be a key of theirs. */
    static const char *const keys[] = { "query=", "proxy=" };
    for (;;) {
        const char *query = NULL;
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
            const char *found = strstr(text, keys[i]);
            if (found && (!query || found < query))
                query = found;
        }
        if (!query)
            break;
        query = strchr(query, '=') + 1;
        crew_buffer_append(&out, text, (size_t)(query - text));
        crew_buffer_text(&out, "***");
        text = query + strcspn(query, "&");
    }
    crew_buffer_text(&out, text);
    return crew_buffer_move(&out, arena).data;
}

/* Whether an option's name says that its value is not for others. */
static bool is_secret(crew_string name)
{
    static const char *const words[] = { "pass", "pwd", "secret", "token" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (size_t at = 0; at + strlen(words[i]) <= name.size; at++)
            if (strncasecmp(name.data + at, words[i], strlen(words[i])) == 0)
                return true;
    return false;
}

struct shown {
    char *out;
    size_t room, used;
};

static void show(struct shown *shown, const char *text, size_t size)
{
    size_t left = shown->room - 1 - shown->used;
    memcpy(shown->out + shown->used, text, size < left ? size : left);
    shown->used += size < left ? size : left;
}

const char *crew_redact(const char *text, char *out, size_t room)
{
    static const char stars[] = "***";
    struct shown shown = { out, room, 0 };
    /* A password may hold anything that should have been escaped: so all up to the last '@'. */
    const char *at = strrchr(text, '@'), *start = strstr(text, ":/");
    start = start && start < at ? start + strspn(start, ":/") : text;
    const char *colon = at ? memchr(start, ':', (size_t)(at - start)) : NULL;
    if (at && (colon || start > text)) {
        show(&shown, text, (size_t)((colon ? colon + 1 : start) - text));
        show(&shown, stars, 3);
        text = at;
    }
    while (*text) {
        size_t plain = strcspn(text, "?&");
        plain += text[plain] != '\0';
        show(&shown, text, plain);
        text += plain;
        size_t name = strcspn(text, "=&");
        if (text[name] != '=' || !is_secret((crew_string){ text, name }))
            continue;
        show(&shown, text, name + 1);
        show(&shown, stars, 3);
        text += name + 1;
        text += strcspn(text, "& ");
    }
    out[shown.used] = '\0';
    return out;
}

/* As it may be shown, in its place. */
static void hide(char *text)
{
    size_t room = strlen(text);
    char *shown = strchr(text, ':') || strchr(text, '=') ? malloc(room + SHOWN_MAX) : NULL;
    crew_url *url = NULL;
    if (!shown)
        return;
    bool parsed = crew_url_parse(text, &url, NULL) == CREW_OK && url;
    const char *safe = parsed ? crew_url_text(url) : crew_redact(text, shown, room + SHOWN_MAX);
    size_t size = strlen(safe);
    memcpy(text, safe, size < room ? size : room);
    memset(text + (size < room ? size : room), '\0', size < room ? room - size : 0);
    crew_url_free(url);
    free(shown);
}

/* Where the kernel shows the program's words from (proc(5), /proc/PID/stat); others may be anybody's, and not
 * be written to. */
static bool shown_area(const char **from, const char **to)
{
    enum { ARG_START = 48 };
    char text[2048];
    FILE *file = fopen("/proc/self/stat", "re");
    size_t size = file ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file)
        (void)fclose(file);
    text[size] = '\0';
    char *at = strrchr(text, ')'); /* behind the second field, which may hold anything */
    for (int field = 2; at && field < ARG_START; field++)
        at = strchr(at + 1, ' ');
    if (!at)
        return false;
    *from = (const char *)strtoull(at, &at, 10); /* NOLINT(performance-no-int-to-ptr) */
    *to = (const char *)strtoull(at, &at, 10);   /* NOLINT(performance-no-int-to-ptr) */
    return *from < *to;
}

char **crew_hide_words(int argc, char **argv)
{
    static char **copy; /* so that it is found where leaks are looked for */
    size_t size = 0;
    for (int i = 0; i < argc; i++)
        size += strlen(argv[i]) + 1;
    size_t table = ((size_t)argc + 1) * sizeof *copy;
    char **words = malloc(table + size);
    if (!words)
        return NULL;
    char *at = (char *)words + table;
    const char *from, *to;
    bool known = shown_area(&from, &to);
    for (int i = 0; i < argc; i++) {
        size_t length = strlen(argv[i]) + 1;
        words[i] = memcpy(at, argv[i], length);
        at += length;
        if (known && argv[i] >= from && argv[i] < to)
            hide(argv[i]);
    }
    words[argc] = NULL;
    copy = words;
    return words;
}

static bool options_look_right(const crew_url *url)
{
    bool right = true;
    for (size_t i = 0; i < url->option_count; i++)
        right = right && looks_right(url->options[i].name) && !is_secret(crew_str(url->options[i].name));
    return right;
}

static crew_status parse(struct parser *p, crew_string rest)
{
    crew_url *url = p->url;
    crew_string scheme = take_until(&rest, ":/?");
    if (scheme.size == 0 || rest.size < 3 || memcmp(rest.data, "://", 3) != 0)
        return bad(p, "wants scheme://host…");
    rest.data += 3;
    rest.size -= 3;
    crew_status status = decode(p, scheme, &url->scheme);
    if (status == CREW_OK)
        status = parse_authority(p, take_until(&rest, "/?"));
    if (status == CREW_OK)
        status = decode(p, take_until(&rest, "?"), &url->path);
    if (status == CREW_OK && take_char(&rest, '?'))
        status = parse_options(p, rest);
    return status;
}

crew_status crew_url_parse(const char *text, crew_url **url, crew_error *why)
{
    if (!text) /* as of an environment variable that is not set */
        return crew_error_set(why, CREW_BAD_ARGUMENT, "no URL");
    if (strlen(text) > URL_MAX)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "a URL of more than %d bytes", URL_MAX);
    crew_url *made = calloc(1, sizeof *made);
    if (!made)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    atomic_init(&made->holds, 1);
    made->text = redact(&made->arena, text);
    char shown[SHOWN_MAX];
    struct parser p = { .url = made, .text = crew_redact(text, shown, sizeof shown), .why = why };
    crew_status status = made->text ? parse(&p, crew_str(text)) : CREW_NO_MEMORY;
    if (status == CREW_NO_MEMORY)
        crew_error_set(why, status, "no memory");
    if (status == CREW_OK && !options_look_right(made))
        made->text = crew_arena_string(&made->arena, crew_str(shown)).data;
    if (status == CREW_OK && !made->text)
        status = crew_error_set(why, CREW_NO_MEMORY, "no memory");
    if (status != CREW_OK) {
        crew_url_free(made);
        return status;
    }
    *url = made;
    return CREW_OK;
}

crew_url *crew_url_hold(crew_url *url)
{
    atomic_fetch_add(&url->holds, 1);
    return url;
}

void crew_url_free(crew_url *url)
{
    if (!url || atomic_fetch_sub(&url->holds, 1) > 1)
        return;
    crew_arena_fini(&url->arena);
    free(url);
}

const char *crew_url_scheme(const crew_url *url)
{
    return url->scheme;
}

const char *crew_url_text(const crew_url *url)
{
    return url->text;
}

const char *crew_url_user(const crew_url *url)
{
    return url->user;
}

const char *crew_url_password(const crew_url *url)
{
    return url->password;
}

size_t crew_url_host_count(const crew_url *url)
{
    return url->host_count;
}

const char *crew_url_host(const crew_url *url, size_t index)
{
    return index < url->host_count ? url->hosts[index].name : NULL;
}

uint16_t crew_url_port(const crew_url *url, size_t index)
{
    return index < url->host_count ? url->hosts[index].port : 0;
}

const char *crew_url_path(const crew_url *url)
{
    return url->path;
}

const char *crew_url_option(const crew_url *url, const char *name)
{
    for (size_t i = 0; i < url->option_count; i++)
        if (strcmp(url->options[i].name, name) == 0)
            return url->options[i].value;
    return NULL;
}

const char *crew_url_option_at(const crew_url *url, const char *name, size_t index)
{
    for (size_t i = 0; i < url->option_count; i++)
        if (strcmp(url->options[i].name, name) == 0 && index-- == 0)
            return url->options[i].value;
    return NULL;
}

bool crew_url_option_is(const crew_url *url, const char *name, const char *value)
{
    const char *text = crew_url_option(url, name);
    return text && strcmp(text, value) == 0;
}

static const crew_url_option_spec *find_spec(const crew_url_option_spec *specs, const char *name)
{
    for (; specs && specs->name; specs++)
        if (strcmp(specs->name, name) == 0)
            return specs;
    return NULL;
}

static bool among(const char *choices, const char *value)
{
    size_t size = strlen(value);
    for (const char *at = choices; size; at++) {
        if (strncmp(at, value, size) == 0 && (at[size] == '|' || at[size] == '\0'))
            return true;
        at = strchr(at, '|');
        if (!at)
            break;
    }
    return false;
}

static bool parse_number(const char *text, uint64_t *number)
{
    *number = 0;
    for (const char *at = text; *at; at++) {
        if (*at < '0' || *at > '9' || *number > (UINT64_MAX - 9) / 10)
            return false;
        *number = *number * 10 + (uint64_t)(*at - '0');
    }
    return *text != '\0';
}

static void list_names(crew_buffer *out, const crew_url_option_spec *specs)
{
    for (; specs && specs->name; specs++)
        crew_buffer_printf(out, "%s%s", out->size ? ", " : "", specs->name);
}

static crew_status check_option(const crew_url *url, const struct option *option,
                                const crew_url_option_spec *spec, crew_error *why)
{
    uint64_t number;
    if (!spec->repeats && crew_url_option_at(url, option->name, 1))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': option '%s' is given twice", url->text,
                              option->name);
    if (spec->choices && !among(spec->choices, option->value))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': option '%s' is '%s'; it can be %s",
                              url->text, option->name, option->value, spec->choices);
    if (spec->max && !(parse_number(option->value, &number) && number >= spec->min && number <= spec->max))
        return crew_error_set(why, CREW_BAD_ARGUMENT,
                              "URL '%s': option '%s' is '%s'; it wants a number, %llu to %llu", url->text,
                              option->name, option->value, (unsigned long long)spec->min,
                              (unsigned long long)spec->max);
    return CREW_OK;
}

crew_status crew_url_check(const crew_url *url, const crew_url_option_spec *specs,
                           const crew_url_option_spec *more, crew_error *why)
{
    for (size_t i = 0; i < url->option_count; i++) {
        const struct option *option = &url->options[i];
        const crew_url_option_spec *spec = find_spec(specs, option->name);
        if (!spec)
            spec = find_spec(more, option->name);
        if (!spec) {
            crew_buffer names = { 0 };
            list_names(&names, specs);
            list_names(&names, more);
            crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': no option '%s'; there are %.*s", url->text,
                           shown_name(option->name), CREW_STR(crew_buffer_string(&names)));
            crew_buffer_fini(&names);
            return CREW_BAD_ARGUMENT;
        }
        crew_status status = check_option(url, option, spec, why);
        if (status != CREW_OK)
            return status;
    }
    return CREW_OK;
}

uint64_t crew_url_number(const crew_url *url, const char *name, uint64_t fallback)
{
    const char *text = crew_url_option(url, name);
    uint64_t number;
    return text && parse_number(text, &number) ? number : fallback;
}
