/* Patterns, pointers and names of scenarios; the README in the folder above tells what they mean. */
#include "json.h"
#include <stdlib.h>
#include <string.h>

static int equal(const json *a, const json *b) {
    if (a->kind != b->kind) return 0;
    switch (a->kind) {
    case KIND_BOOLEAN: return a->boolean == b->boolean;
    case KIND_NUMBER: return !(a->number < b->number) && !(a->number > b->number);
    case KIND_STRING: return strcmp(a->text, b->text) == 0;
    default: return 1;
    }
}

static int fits(const json *pattern, const json *value) { return pattern_mismatch(pattern, value, "") == NULL; }

static int has(const json *list, const json *pattern) {
    for (size_t i = 0; list->kind == KIND_LIST && i < list->count; i++)
        if (fits(pattern, list->items[i])) return 1;
    return 0;
}

/* Each of the patterns has a value of its own. */
static int is_set(const json *patterns, const json *list) {
    if (list->kind != KIND_LIST || list->count != patterns->count) return 0;
    char *taken = keep(list->count + 1);
    for (size_t i = 0; i < patterns->count; i++) {
        size_t at = 0;
        while (at < list->count && (taken[at] || !fits(patterns->items[i], list->items[at]))) at++;
        if (at == list->count) return 0;
        taken[at] = 1;
    }
    return 1;
}

static int passes(const char *test, const json *argument, const json *value) {
    static const char *const kinds[] = {"null", "boolean", "number", "string", "list", "object"};
    if (strcmp(test, "$length") == 0) {
        size_t n = value->kind == KIND_STRING ? strlen(value->text) : value->count;
        return (value->kind == KIND_STRING || value->kind == KIND_LIST) && n == (size_t)argument->number;
    }
    if (strcmp(test, "$contains") == 0) {
        if (value->kind == KIND_STRING && argument->kind == KIND_STRING) return strstr(value->text, argument->text) != NULL;
        return has(value, argument);
    }
    if (strcmp(test, "$min") == 0) return value->kind == KIND_NUMBER && value->number >= argument->number;
    if (strcmp(test, "$max") == 0) return value->kind == KIND_NUMBER && value->number <= argument->number;
    if (strcmp(test, "$is") == 0) return strcmp(kinds[value->kind], argument->text) == 0;
    if (strcmp(test, "$set") == 0) return is_set(argument, value);
    if (strcmp(test, "$absent") == 0) return value->kind == KIND_NULL;
    if (strcmp(test, "$not") == 0) return !fits(argument, value);
    if (strcmp(test, "$any") == 0)
        for (size_t i = 0; i < argument->count; i++)
            if (fits(argument->items[i], value)) return 1;
    return 0; /* also for a test that is not known */
}

char *pattern_mismatch(const json *pattern, const json *value, const char *at) {
    char *why;
    int fit;
    if (pattern->kind == KIND_OBJECT && pattern->count == 1 && pattern->keys[0][0] == '$') {
        fit = passes(pattern->keys[0], pattern->items[0], value);
    } else if (pattern->kind == KIND_OBJECT && value->kind == KIND_OBJECT) {
        for (size_t i = 0; i < pattern->count; i++) {
            const char *key = pattern->keys[i];
            why = pattern_mismatch(pattern->items[i], json_get(value, key), format("%s/%s", at, key));
            if (why != NULL) return why;
        }
        fit = 1;
    } else if (pattern->kind == KIND_LIST && value->kind == KIND_LIST && pattern->count == value->count) {
        for (size_t i = 0; i < pattern->count; i++) {
            why = pattern_mismatch(pattern->items[i], value->items[i], format("%s/%zu", at, i));
            if (why != NULL) return why;
        }
        fit = 1;
    } else {
        fit = pattern->kind != KIND_OBJECT && pattern->kind != KIND_LIST && equal(pattern, value);
    }
    return fit ? NULL : format("%s is %.600s and not %s", at, json_text(value), json_text(pattern));
}

json *pattern_pointer(json *value, const char *path) {
    while (*path == '/') {
        size_t n = strcspn(++path, "/");
        json *key = json_string(path, n);
        if (value->kind == KIND_LIST) {
            size_t at = strtoul(key->text, NULL, 10);
            value = at < value->count ? value->items[at] : json_null();
        } else value = json_get(value, key->text);
        path += n;
    }
    return value;
}

static char *replace(char *text, const char *name, const char *by) {
    size_t n = strlen(name);
    for (char *at = text; (at = strstr(at, name)) != NULL;) {
        size_t before = (size_t)(at - text);
        text = format("%.*s%s%s", (int)before, text, by, at + n);
        at = text + before + strlen(by);
    }
    return text;
}

json *pattern_fill(const json *value, const json *saved) {
    json *made;
    switch (value->kind) {
    case KIND_STRING: {
        char *text = value->text;
        for (size_t i = 0; i < saved->count; i++) {
            char *name = format("${%s}", saved->keys[i]);
            if (strcmp(text, name) == 0) return saved->items[i];
            if (saved->items[i]->kind == KIND_STRING) text = replace(text, name, saved->items[i]->text);
        }
        text = replace(text, "$queue", json_word(saved, "queue"));
        return json_string(text, strlen(text));
    }
    case KIND_LIST:
        made = json_list();
        for (size_t i = 0; i < value->count; i++) json_add(made, pattern_fill(value->items[i], saved));
        return made;
    case KIND_OBJECT:
        made = json_object();
        for (size_t i = 0; i < value->count; i++) json_set(made, value->keys[i], pattern_fill(value->items[i], saved));
        return made;
    default: return (json *)value;
    }
}
