/* A worker with types and errors of its own: dates travel as RFC 3339 text, amounts as decimal text (no
 * double holds 0.10), on every wire; and a table says what can go wrong.
 *
 *   $ ledger --listen zmq+tcp://127.0.0.1:5555 &
 *   $ rpcrew call zmq+tcp://127.0.0.1:5555 deposit ann '"12.50"'
 *   {"balance":"12.50"}
 *   $ rpcrew call zmq+tcp://127.0.0.1:5555 withdraw ann '"100.00"'
 *   rpcrew: withdraw at zmq+tcp://127.0.0.1:5555: there is not enough in the account (code 402, NOT_ENOUGH),
 * … */
#include <rpcrew.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- types ---- */

struct date {
    int year, month, day;
};

/* The number that so many digits are; -1 if they are none. */
static int digits(const char *text, int count)
{
    int number = 0;
    for (int i = 0; i < count; i++) {
        if (text[i] < '0' || text[i] > '9')
            return -1;
        number = number * 10 + (text[i] - '0');
    }
    return number;
}

static int days_of(int year, int month)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

static crew_status date_to_value(const void *object, crew_arena *arena, const crew_value **value)
{
    const struct date *date = object;
    char text[40];
    if (date->year > 9999) /* RFC 3339 goes no further */
        return CREW_OUT_OF_RANGE;
    (void)snprintf(text, sizeof text, "%04d-%02d-%02d", date->year, date->month, date->day);
    return crew_pack(arena, value, "s", text);
}

static crew_status date_from_value(const crew_value *value, void *object)
{
    struct date *date = object;
    crew_string text;
    crew_status status = crew_value_string(value, &text);
    if (status != CREW_OK)
        return status;
    if (text.size != 10 || text.data[4] != '-' || text.data[7] != '-')
        return CREW_MISMATCH;
    *date = (struct date){ digits(text.data, 4), digits(text.data + 5, 2), digits(text.data + 8, 2) };
    bool good = date->year >= 0 && date->month >= 1 && date->month <= 12 && date->day >= 1 &&
                date->day <= days_of(date->year, date->month);
    return good ? CREW_OK : CREW_OUT_OF_RANGE;
}

static const crew_custom_type date_type = {
    "date", "string", "date", sizeof(struct date), date_to_value, date_from_value,
};

/* An amount is an int64_t of cents. */
static crew_status amount_to_value(const void *object, crew_arena *arena, const crew_value **value)
{
    int64_t cents = *(const int64_t *)object;
    char text[40];
    (void)snprintf(text, sizeof text, "%s%lld.%02d", cents < 0 ? "-" : "", llabs(cents / 100),
                   abs((int)(cents % 100)));
    return crew_pack(arena, value, "s", text);
}

static crew_status amount_from_value(const crew_value *value, void *object)
{
    crew_string text;
    crew_status status = crew_value_string(value, &text);
    if (status != CREW_OK)
        return status;
    bool negative = text.size && text.data[0] == '-';
    const char *at = text.data + negative;
    size_t whole = strspn(at, "0123456789");
    if (!whole || whole > 15)
        return whole ? CREW_OUT_OF_RANGE : CREW_MISMATCH;
    if (at[whole] != '.' || digits(at + whole + 1, 2) < 0 || at + whole + 3 != text.data + text.size)
        return CREW_MISMATCH;
    int64_t cents = strtoll(at, NULL, 10) * 100 + digits(at + whole + 1, 2);
    *(int64_t *)object = negative ? -cents : cents;
    return CREW_OK;
}

static const crew_custom_type amount_type = {
    "amount", "string", NULL, sizeof(int64_t), amount_to_value, amount_from_value,
};

static const crew_custom_type *const types[] = { &date_type, &amount_type, NULL };

/* ---- errors ---- */

enum { NO_ACCOUNT = 404, NOT_ENOUGH = 402 };

static const crew_service_error errors[] = {
    { NO_ACCOUNT, "NO_ACCOUNT", "there is no such account" },
    { NOT_ENOUGH, "NOT_ENOUGH", "there is not enough in the account" },
    { 0 },
};

/* ---- methods ---- */

enum { ACCOUNTS_MOST = 1000 };

static struct ledger {
    pthread_mutex_t mutex;
    size_t count;
    struct account {
        char name[32];
        int64_t cents;
    } accounts[ACCOUNTS_MOST];
} ledger = { .mutex = PTHREAD_MUTEX_INITIALIZER };

/* Under the lock. */
static struct account *find(crew_string name, bool make)
{
    for (size_t i = 0; i < ledger.count; i++)
        if (crew_string_equal(crew_str(ledger.accounts[i].name), name))
            return &ledger.accounts[i];
    bool fits = name.size < sizeof ledger.accounts[0].name && !memchr(name.data, 0, name.size);
    if (!make || ledger.count == ACCOUNTS_MOST || !fits)
        return NULL;
    struct account *made = &ledger.accounts[ledger.count++];
    memcpy(made->name, name.data, name.size);
    return made;
}

static crew_status reply_balance(crew_call *call, int64_t cents)
{
    return crew_reply(call, "{s:t}", "balance", &amount_type, &cents);
}

static crew_status deposit(crew_call *call)
{
    int64_t cents = *(const int64_t *)crew_arg_custom(call, 1);
    if (cents <= 0)
        return crew_fail_param(call, 1, "must be positive");
    pthread_mutex_lock(&ledger.mutex);
    struct account *account = find(crew_arg_string(call, 0), true);
    bool room = account && account->cents <= INT64_MAX - cents;
    int64_t balance = room ? account->cents += cents : 0;
    pthread_mutex_unlock(&ledger.mutex);
    if (!account)
        return crew_fail_param(call, 0, "cannot be a new account");
    return room ? reply_balance(call, balance)
                : crew_fail_param(call, 1, "finds not enough room in the account");
}

static crew_status withdraw(crew_call *call)
{
    int64_t cents = *(const int64_t *)crew_arg_custom(call, 1);
    if (cents <= 0)
        return crew_fail_param(call, 1, "must be positive");
    pthread_mutex_lock(&ledger.mutex);
    struct account *account = find(crew_arg_string(call, 0), false);
    int64_t before = account ? account->cents : 0;
    if (account && before >= cents)
        account->cents -= cents;
    pthread_mutex_unlock(&ledger.mutex);
    if (!account)
        return crew_fail(call, NO_ACCOUNT, "there is no account '%.*s'", CREW_STR(crew_arg_string(call, 0)));
    if (before < cents)
        return crew_fail_data(call, NOT_ENOUGH, NULL, "{s:t}", "balance", &amount_type, &before);
    return reply_balance(call, before - cents);
}

static crew_status due(crew_call *call)
{
    struct date date = *(const struct date *)crew_arg_custom(call, 0);
    uint64_t days = crew_arg_given(call, 1) ? crew_arg_uint(call, 1) : 30;
    if (days > 36525)
        return crew_fail_param(call, 1, "is a hundred years at most");
    for (; days; days--) {
        bool last = date.day == days_of(date.year, date.month);
        date.day = last ? 1 : date.day + 1;
        date.month += last;
        date.year += date.month > 12;
        date.month = date.month > 12 ? 1 : date.month;
    }
    return crew_reply(call, "t", &date_type, &date);
}

static const crew_method methods[] = {
    { "deposit", deposit, "account:string amount:amount", "object", "Puts in; the new balance." },
    { "withdraw", withdraw, "account:string amount:amount", "object", "Takes out; the new balance." },
    { "due", due, "from:date days:uint?", "date", "So many days later, 30 if not given." },
    { 0 },
};

int main(int argc, char **argv)
{
    static const crew_service service = {
        .name = "ledger", .version = "1.0.0", .methods = methods, .types = types, .errors = errors
    };
    return crew_worker_main(argc, argv, &service);
}
