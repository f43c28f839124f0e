/* rpcrew: calls services from a shell. */
#include "colour.h"
#include "commands.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Which commands an option is for. */
enum { CALL = 1, NOTIFY = 2, BATCH = 4, BENCH = 8, DESCRIBE = 16, PING = 32, PROBE = 64, ALL = 127 };

static const struct command {
    const char *name, *words, *help;
    cli_command *run;
    unsigned bit;
    bool many;        /* calls, so that it pays to prepare for them */
    const char *more; /* what its own page says besides */
} commands[] = {
    { "call", "URL METHOD [ARG... | name=value...]", "calls a method and prints its result", cli_call, CALL,
      false,
      "  rpcrew call zmq+tcp://localhost:5555 subtract 42 23\n"
      "  rpcrew call http://localhost:8080 subtract minuend=42 subtrahend=23\n" },
    { "notify", "URL METHOD [ARG... | name=value...]", "calls one-way: no answer is waited for", cli_notify,
      NOTIFY, false, "  rpcrew notify 'amqp://localhost/?queue=mail' send '{\"to\": \"ann\"}'\n" },
    { "batch", "URL [FILE]", "calls for each line {\"method\":...,\"params\":...}", cli_batch, BATCH, true,
      "A line of JSON comes out for each, in the same order: {\"id\":...,\"result\":...} or "
      "{\"id\":...,\"error\":...}.\n"
      "A line that is no call ends it, with status 2; those before it are answered.\n\n"
      "  echo '{\"method\": \"subtract\", \"params\": [42, 23]}' | rpcrew batch tcp://localhost:7000\n" },
    { "bench", "URL METHOD [ARG...]", "calls for a while; prints calls/s and latencies", cli_bench, BENCH,
      true, "  rpcrew bench -c 256 -d 30 tcp://localhost:7000 subtract 42 23\n" },
    { "describe", "URL", "shows the methods of a service", cli_describe, DESCRIBE, false,
      "  rpcrew describe unix:///run/calc.sock\n" },
    { "ping", "URL", "sees whether somebody answers, and how fast", cli_ping, PING, false,
      "  rpcrew ping --retry -t 60 'amqp://localhost/?queue=calc'\n" },
    { "probe", "URL", "sees whether a worker takes calls, by its status", cli_probe, PROBE, false,
      "For health checks where there is no HTTP: status 0 while the worker serves; 1, or 3, while it "
      "drains.\n"
      "Behind a broker any worker of the queue may answer: there a worker's --admin tells of it alone.\n\n"
      "  rpcrew probe -t 2 unix:///run/calc.sock\n" },
};

enum { COMMANDS = sizeof commands / sizeof *commands };

enum { OPTION_PRETTY = 256, OPTION_COMPACT, OPTION_VERSION, OPTION_RETRY, OPTION_TEXT };

/* Every option, once: how it is written, what help says, and which commands it is for. */
static const struct cli_option {
    struct option option;
    const char *value, *help;
    unsigned commands;
} cli_options[] = {
    { { "timeout", required_argument, NULL, 't' },
      "SECONDS",
      "how long a call may take; 30, fractions allowed",
      ALL },
    { { "protocol", required_argument, NULL, 'p' }, "NAME", "jsonrpc (the default), jsonrpc1, msgpack", ALL },
    { { "verbose", no_argument, NULL, 'v' }, NULL, "shows on standard error what goes over the wire", ALL },
    { { "retry", no_argument, NULL, OPTION_RETRY },
      NULL,
      "tries again while nobody serves, or is overloaded",
      ALL },
    { { "raw", no_argument, NULL, 'r' },
      NULL,
      "prints a string without quotes, and bytes as they are, not as hex",
      CALL },
    { { "json", no_argument, NULL, 'j' },
      NULL,
      "describe: the whole OpenRPC document; bench: the figures as JSON",
      DESCRIBE | BENCH },
    { { "bytes", no_argument, NULL, 'b' },
      NULL,
      "@FILE and - are bytes, as with msgpack; of call, a result declared as bytes is too",
      CALL | NOTIFY | BENCH },
    { { "text", no_argument, NULL, OPTION_TEXT },
      NULL,
      "@FILE and - are text, also with msgpack",
      CALL | NOTIFY | BENCH },
    { { "idempotent", no_argument, NULL, 'i' },
      NULL,
      "may be sent again when the connection is lost",
      CALL | BATCH | BENCH },
    { { "header", required_argument, NULL, 'H' },
      "NAME:VALUE",
      "goes beside the request (RabbitMQ, HTTP); more than one, each of its name",
      ALL },
    { { "concurrency", required_argument, NULL, 'c' }, "N", "calls at a time; 64", BATCH | BENCH },
    { { "duration", required_argument, NULL, 'd' }, "SECONDS", "how long; 10", BENCH },
    { { "summary", required_argument, NULL, 's' }, "FILE", "writes the figures there, as JSON", BATCH },
    { { "pretty", no_argument, NULL, OPTION_PRETTY },
      NULL,
      "indented (the default on a terminal)",
      CALL | DESCRIBE },
    { { "compact", no_argument, NULL, OPTION_COMPACT },
      NULL,
      "one line (the default when piped)",
      CALL | DESCRIBE },
    { { "help", no_argument, NULL, 'h' }, NULL, "shows this; of a command behind it, that one's page", ALL },
    { { "version", no_argument, NULL, OPTION_VERSION }, NULL, "shows the version", ALL },
};

enum { OPTIONS = sizeof cli_options / sizeof *cli_options };

static void print_options(FILE *file, unsigned wanted)
{
    (void)fputs("\noptions:\n", file);
    for (int i = 0; i < OPTIONS; i++) {
        const struct cli_option *o = &cli_options[i];
        char letter[8] = "    ", shown[60];
        if (!(o->commands & wanted))
            continue;
        if (o->option.val < 256)
            (void)snprintf(letter, sizeof letter, "-%c, ", o->option.val);
        (void)snprintf(shown, sizeof shown, "%s--%s %s", letter, o->option.name, o->value ? o->value : "");
        (void)fprintf(file, "  %-25s %s\n", shown, o->help);
    }
}

static void print_arguments(FILE *file)
{
    (void)fputs(
        "\nAn ARG or value is JSON (42, true, '[1,2]', '\"text\"'), or else a string; @FILE is what is in "
        "the "
        "file,\n"
        "- what comes on standard input. A string with = in it goes as JSON: '\"a=b\"'.\n"
        "Options may stand anywhere; an ARG that begins with a dash and is no number goes behind --.\n",
        file);
}

static void print_statuses(FILE *file)
{
    (void)fputs("\nexit status: 0 done, 1 the service answered with an error, 2 bad usage, 3 nothing "
                "serves there, 4 no\n"
                "answer in time, 5 overloaded, 6 connection lost, 7 the answer broke the protocol, 8 no "
                "memory and the like\n",
                file);
}

/* All of it, or one command's page. */
static void print_help(FILE *file, const struct command *command)
{
    if (command) {
        (void)fprintf(file, "usage: rpcrew %s [options] %s\n\nrpcrew %s %s.\n", command->name, command->words,
                      command->name, command->help);
        if (command->bit & (CALL | NOTIFY | BENCH))
            print_arguments(file);
        (void)fprintf(file, "\n%s", command->more);
        print_options(file, command->bit);
        print_statuses(file);
        return;
    }
    (void)fprintf(file, "usage: rpcrew COMMAND [options] URL ...\n\ncommands:\n");
    for (int i = 0; i < COMMANDS; i++)
        (void)fprintf(file, "  rpcrew %-8s %-36s %s\n", commands[i].name, commands[i].words,
                      commands[i].help);
    (void)fprintf(file, "  rpcrew %-8s %-36s %s\n", "help", "[COMMAND]",
                  "shows a command's page, with its options");
    print_arguments(file);
    print_options(file, ALL);
    print_statuses(file);
}

static void show_message(void *context, const crew_trace *trace)
{
    const crew_client_options *client = context;
    const char *type = crew_answer_type(*trace->content_type ? trace->content_type : NULL, trace->bytes);
    if (!*trace->content_type && client->protocol) /* ZeroMQ tells none */
        type = strcmp(client->protocol, "msgpack") == 0 ? "application/msgpack" : "application/json";
    bool text = type && strcmp(type, "application/json") == 0;
    flockfile(stderr);
    (void)fputs(trace->incoming ? "< " : "> ", stderr);
    for (size_t i = 0; i < trace->bytes.size; i++) {
        unsigned char c = (unsigned char)trace->bytes.data[i];
        bool plain = c >= ' ' && c < 0x7f && c != '\\';
        if (plain || (text && (c >= 0x80 || c == '\\' || c == '\n' || c == '\t')))
            (void)fputc(c, stderr);
        else
            (void)fprintf(stderr, "\\x%02x", c);
    }
    (void)fputc('\n', stderr);
    funlockfile(stderr);
}

struct settings {
    struct cli cli;
    crew_arena *arena; /* of headers */
    crew_value *headers;
    bool text; /* of @FILE and -, whatever the protocol */
    bool given[OPTIONS];
    crew_client_options client;
};

static bool read_seconds(const char *option, const char *text, double *seconds)
{
    char *end;
    errno = 0;
    *seconds = strtod(text, &end);
    if (end != text && !*end && !errno && *seconds >= 0.001 && *seconds <= 1e6)
        return true;
    char shown[200];
    cli_complain("--%s %s: wants seconds, such as 0.5\n", option, crew_redact(text, shown, sizeof shown));
    return false;
}

/* "Name: value", as curl has it. */
static bool add_header(struct settings *s, const char *text)
{
    const char *colon = strchr(text, ':'), *value = colon ? colon + 1 + strspn(colon + 1, " ") : NULL;
    crew_status status = colon ? CREW_OK : CREW_BAD_ARGUMENT;
    if (status == CREW_OK && !s->headers && (status = crew_arena_new(&s->arena)) == CREW_OK)
        status = crew_object_new(s->arena, &s->headers);
    const crew_value *packed;
    if (status == CREW_OK)
        status = crew_pack(s->arena, &packed, "s", value);
    if (status == CREW_OK) /* of which one that is there twice is an error, later */
        status =
            crew_object_append(s->arena, s->headers, (crew_string){ text, (size_t)(colon - text) }, packed);
    s->cli.call.headers = s->headers;
    if (status != CREW_OK) {
        char shown[200];
        cli_complain("--header %s: %s\n", crew_redact(text, shown, sizeof shown),
                     colon ? crew_status_text(status) : "wants 'Name: value'");
    }
    return status == CREW_OK;
}

static bool read_concurrency(const char *text, unsigned *concurrency)
{
    char *end;
    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    *concurrency = (unsigned)number;
    if (end != text && !*end && !errno && *text != '-' && number >= 1 && number <= 65536)
        return true;
    char shown[200];
    cli_complain("--concurrency %s: wants a number from 1 to 65536\n",
                 crew_redact(text, shown, sizeof shown));
    return false;
}

/* Words like -5 are no options: a mark before them keeps getopt off. They are the caller's to unmark. */
static const char mark = '\1';

/* The option that getopt did not like: a letter may stand in the middle of a word. */
static const char *wrong_option(const char *word, char *shown, size_t room)
{
    bool letter = optopt > ' ' && optopt < 127;
    (void)snprintf(shown, room, "-%c", optopt);
    return letter && strncmp(word, "--", 2) != 0 ? shown : crew_redact(word, shown, room);
}

/* The program's own words, and the copy of them that is read: getopt moves what these point to. */
static struct {
    int count;
    char **own, **copy;
} words;

/* What is for the program is not for everybody who looks at the list of processes. */
static char **hide_words(int argc, char **argv)
{
    char **copy = crew_hide_words(argc, argv);
    char **places = copy ? calloc((size_t)argc, sizeof *places) : NULL;
    if (places) {
        memcpy(places, copy, (size_t)argc * sizeof *places);
        words.own = argv;
        words.copy = places;
        words.count = argc;
    }
    return copy ? copy : argv;
}

/* A part of a word that crew_hide_words cannot know. */
static void hide(const char *part)
{
    for (int i = 0; i < words.count; i++) {
        const char *word = words.copy[i];
        if (part >= word && part <= word + strlen(word))
            memset(words.own[i] + (part - word), '*', strlen(part));
    }
}

/* -1 to go on, else the exit status. command: whose options they are; NULL: those before it. */
static int read_options(struct settings *s, int argc, char **argv, const struct command *command)
{
    double seconds;
    char shown[200];
    struct option options[OPTIONS + 1] = { { 0 } };
    for (int i = 0; i < OPTIONS; i++)
        options[i] = cli_options[i].option;
    const char *letters = command ? ":t:p:vrjbiH:c:d:s:h" : "+:t:p:vrjbiH:c:d:s:h";
    for (int chosen; (chosen = getopt_long(argc, argv, letters, options, NULL)) != -1;) {
        const char *argument = optarg ? optarg : "";
        argument += *argument == mark;
        for (int i = 0; i < OPTIONS; i++)
            s->given[i] = s->given[i] || cli_options[i].option.val == chosen;
        switch (chosen) {
        case 't':
            if (!read_seconds("timeout", argument, &seconds))
                return EXIT_USAGE;
            s->client.timeout_ms = (unsigned)(seconds * 1000 + 0.5);
            break;
        case 'd':
            if (!read_seconds("duration", argument, &s->cli.duration_s))
                return EXIT_USAGE;
            break;
        case 'c':
            if (!read_concurrency(argument, &s->cli.concurrency))
                return EXIT_USAGE;
            break;
        case 'b': s->cli.bytes = s->cli.bytes_result = true; break;
        case OPTION_TEXT: s->text = true; break;
        case 'i': s->cli.call.idempotent = true; break;
        case 'H':
            hide(argument);
            if (!add_header(s, argument))
                return EXIT_USAGE;
            break;
        case 's': s->cli.summary = argument; break;
        case OPTION_RETRY: s->cli.call.retry = CREW_RETRY_NO_SERVICE | CREW_RETRY_OVERLOADED; break;
        case 'p': s->client.protocol = argument; break;
        case 'v':
            s->client.trace = show_message;
            s->client.trace_context = &s->client;
            break;
        case 'r': s->cli.raw = true; break;
        case 'j': s->cli.json = true; break;
        case 'h': print_help(stdout, command); return EXIT_OK;
        case OPTION_PRETTY: s->cli.pretty = true; break;
        case OPTION_COMPACT: s->cli.pretty = false; break;
        case OPTION_VERSION: puts("rpcrew 0.1.0"); return EXIT_OK;
        default:
            cli_complain("'%s' %s\nrpcrew %s%s--help shows how\n",
                         wrong_option(argv[optind - 1], shown, sizeof shown),
                         chosen == ':' ? "requires an argument" : "is not an option",
                         command ? command->name : "", command ? " " : "");
            return EXIT_USAGE;
        }
    }
    return -1;
}

static const struct command *find_command(const char *name)
{
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static int no_command(const char *name)
{
    char shown[200], list[200] = "";
    for (int i = 0; i < COMMANDS; i++)
        (void)snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "",
                       commands[i].name);
    cli_complain("no command '%s'; there are %s, help\n", crew_redact(name, shown, sizeof shown), list);
    return EXIT_USAGE;
}

/* help [COMMAND] */
static int help(int argc, char **argv)
{
    const struct command *command = argc > 1 ? find_command(argv[1]) : NULL;
    if (argc > 1 && !command && strcmp(argv[1], "help") != 0)
        return no_command(argv[1]);
    print_help(stdout, command);
    return EXIT_OK;
}

/* What a URL says of the time comes before all else. */
static unsigned timeout_of(const char *text, unsigned otherwise_ms)
{
    crew_url *url;
    if (crew_url_parse(text, &url, NULL) != CREW_OK)
        return otherwise_ms;
    unsigned timeout_ms = (unsigned)crew_url_number(url, "timeout_ms", otherwise_ms);
    crew_url_free(url);
    return timeout_ms;
}

static int run(const struct command *command, struct settings *s, int argc, char **argv)
{
    crew_error why;
    for (int i = 0; i < OPTIONS; i++)
        if (s->given[i] && !(cli_options[i].commands & command->bit)) {
            cli_complain("--%s is not for %s\nrpcrew %s --help shows what is\n", cli_options[i].option.name,
                         command->name, command->name);
            return EXIT_USAGE;
        }
    if (optind >= argc) {
        cli_complain("%s wants a URL, such as zmq+tcp://localhost:5555\nrpcrew %s --help shows how\n",
                     command->name, command->name);
        return EXIT_USAGE;
    }
    s->cli.url = argv[optind];
    s->cli.words = argv + optind + 1;
    s->cli.count = (size_t)(argc - optind - 1);
    s->client.brief = !command->many;
    s->cli.timeout_ms = timeout_of(s->cli.url, s->client.timeout_ms ? s->client.timeout_ms : 30000);
    if (s->client.protocol && strcmp(s->client.protocol, "msgpack") == 0)
        s->cli.bytes = true; /* it has a type for them */
    if (s->text)
        s->cli.bytes = false;
    if (crew_client_new(&s->cli.client, s->cli.url, &s->client, &why) != CREW_OK)
        return cli_fail(&why);
    int code = command->run(&s->cli);
    crew_client_free(s->cli.client);
    return code;
}

static bool mark_numbers(int argc, char **argv)
{
    bool good = true;
    for (int i = 1; i < argc && good && strcmp(argv[i], "--") != 0; i++) {
        const char *digits = argv[i] + (argv[i][0] == '-') + (argv[i][0] == '-' && argv[i][1] == '.');
        if (argv[i][0] != '-' || !isdigit((unsigned char)*digits))
            continue;
        char *marked = malloc(strlen(argv[i]) + 2); /* as long as the program */
        good = marked != NULL;
        if (good) {
            marked[0] = mark;
            memcpy(marked + 1, argv[i], strlen(argv[i]) + 1);
            argv[i] = marked;
        }
    }
    return good;
}

static void unmark_numbers(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        argv[i] += argv[i][0] == mark;
}

/* Options may stand before the command, too. */
int main(int argc, char **argv)
{
    struct settings settings = { .cli = { .concurrency = 64, .duration_s = 10 } };
    opterr = 0; /* getopt would show what should not be seen */
    argv = hide_words(argc, argv);
    settings.cli.pretty = isatty(STDOUT_FILENO) != 0;
    int code = read_options(&settings, argc, argv, NULL);
    if (code >= 0)
        return code;
    if (optind >= argc) {
        print_help(stderr, NULL);
        return EXIT_USAGE;
    }
    if (strcmp(argv[optind], "help") == 0)
        return help(argc - optind, argv + optind);
    const struct command *command = find_command(argv[optind]);
    if (!command)
        return no_command(argv[optind]);
    argc -= optind;
    argv += optind;
    optind = 0; /* getopt starts over */
    code = mark_numbers(argc, argv) ? read_options(&settings, argc, argv, command) : EXIT_LOCAL;
    unmark_numbers(argc, argv);
    if (code < 0)
        code = run(command, &settings, argc, argv);
    crew_arena_free(settings.arena);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        cli_complain("writing the output: %s\n", strerror(errno));
        return EXIT_LOCAL;
    }
    return code;
}
