// Package config reads settings from a file, the environment and the command
// line into the options of the components they belong to.
//
// The program declares a table of settings once: each Key names a setting,
// documents it, and binds it to a field of some component's own options, which
// already holds the default. Everything else follows from the table: the file
// formats, the names of the variables, the flags, the checks, the reference
// page, the JSON Schema, the sample files. Nothing of this package travels
// further into the program: after Load the bound fields hold the result.
//
// # Layers
//
// Later layers win over earlier ones:
//
//	default      what the bound field held when the table was made
//	file         YAML, JSON or TOML, by the file's extension
//	environment  PREFIX_AREA_KEY: upper case, dots become underscores;
//	             the items of a list are separated by commas
//	flag         --name, where the key has one
//
// # Strictness
//
// A key that the table does not know, a value of another type, a value out of
// its limits, a key given twice, a variable with the prefix that means nothing:
// each is a Problem, and Load reports all of them at once, each with file, line,
// key and, for an unknown name, the nearest known one. Numbers are decimal.
// Durations carry a unit (30s, 5m, 7d); byte sizes carry one or are bytes (64MiB,
// 65536); both refuse what they cannot hold exactly. YAML's anchors and aliases
// are not supported.
//
// The variables by which Kubernetes announces a service of the same name
// (PREFIX_SERVICE_HOST, PREFIX_PORT_7474_TCP, ...) are not settings and are left
// alone.
//
// # Versions
//
// A file begins with the version of the table it is written for. Files of
// earlier versions are read through Migrations, and what they changed is noted
// in the Snapshot; files of later versions are refused.
//
// # Reloading
//
// A reload is another table, bound to fresh fields, and another Load. Diff
// compares the Snapshots of the two: what changed, and whether a running program
// takes it (Key.Live) or needs a restart. An invalid file yields an error and
// nothing else, so whoever reloads keeps what runs. Watch tells when the file
// has changed.
//
// # Concurrency
//
// A Schema is used by one goroutine. A Snapshot is immutable.
package config
