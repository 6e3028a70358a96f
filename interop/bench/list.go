package main

import "time"

func minted(b *bench) string { return b.minted }
func random(b *bench) string { return b.random }

// measurements are those of make bench, peers before what is held against them.
func measurements() []measurement {
	const brief = 2 * time.Second
	list := []measurement{
		{name: "source_normal", about: "the source system's way in cgo SQLite, NORMAL", run: source("NORMAL", brief)},
		{name: "source_full", about: "the same, FULL", run: source("FULL", brief)},
		{name: "native_signed", about: "cgo SQLite, our schema, batches and sealer, FULL", run: withoutPlugin(true, 1024, openNative)},
		{name: "native_unsigned", about: "the same without signatures", run: withoutPlugin(false, 1024, openNative)},
		{name: "jsonl", about: "a file of JSON Lines, one fsync per 256", run: jsonLines},
		{name: "tessera", about: "Tessera's POSIX log, batches of 256", run: tesseraLog(256, brief)},
		{name: "tessera_1024", about: "the same, batches of 1,024", run: tesseraLog(1024, brief)},
		{name: "immudb", about: "immudb's embedded store, one writer, 256 events a transaction", run: immudbLog(1, brief)},
		{name: "immudb_8", about: "the same, eight writers", run: immudbLog(8, brief)},

		{name: "ingest", about: "ours: a file, minted ids, disk queue, signed, FULL", run: ingest(minted, edit{}), against: "source_full"},
		{name: "ingest_memory", about: "the same through a queue in memory", run: ingest(minted, edit{memory: true}), against: "native_signed"},
		{name: "ingest_random", about: "with random ids given by the caller", run: ingest(random, edit{}), against: "source_full"},
		{name: "ingest_unsigned", about: "without signatures, queue in memory", run: ingest(minted, edit{unsigned: true, memory: true}), against: "tessera_1024"},
		{name: "direct_signed", about: "the same statements without queue and plugin, on the same SQLite", run: withoutPlugin(true, 1024, openDirect), against: "ingest_memory"},
		{name: "sink_direct", about: "the sink stage: its statements called from Go, batches of 256, FULL", run: stage(openDirect)},
		{name: "sink_plugin", about: "the sink stage: the metered plugin, on the same SQLite", run: stage(openPlugged), against: "sink_direct"},
		{name: "handover_bare", about: "a batch of 256 events to a guest that does nothing, by wazero alone", run: handedOver(handBare)},
		{name: "handover_extism", about: "the same by Extism's Go SDK", run: handedOver(handExtism)},
		{name: "handover", about: "ours: framing, metering and verdicts included", run: handedOver(handOurs), against: "handover_extism"},
		{name: "verify", about: "ours: chain, contents and signatures", run: verify(edit{})},
		{name: "verify_unsigned", about: "chain and contents", run: verify(edit{unsigned: true})},
		{name: "submit", about: "ours: Submit to a queue in memory, consumer running", run: submitted},
	}
	for _, producers := range []int{8, 256} {
		add := func(name, about string, run opener, against string) {
			n := map[int]string{8: "_8", 256: "_256"}[producers]
			if against != "" {
				against += n
			}
			list = append(list, measurement{name: name + n, about: about, run: acknowledged(run, producers, brief), against: against})
		}
		add("bbolt", "producers wait for each event in bbolt", boltLog, "")
		add("tidwall_wal", "in tidwall/wal, with a group commit", tidwallLog, "")
		add("raft_wal", "in hashicorp/raft-wal, with a group commit", raftLog, "")
		add("queue", "ours: in the disk queue", ourLog, "raft_wal")
	}
	return append(list, []measurement{
		{name: "http_durable_8", about: "ours: 8 clients, one event a request", run: served(edit{}, 8, 1, "durable", brief)},
		{name: "http_durable_64", about: "64 clients, one event a request", run: served(edit{}, 64, 1, "durable", brief)},
		{name: "http_durable_256", about: "256 clients, one event a request", run: served(edit{}, 256, 1, "durable", brief)},
		{name: "http_durable_64x100", about: "64 clients, 100 events a request", run: served(edit{}, 64, 100, "durable", brief)},
		{name: "http_ledger_1", about: "1 client waits for the ledger", run: served(edit{}, 1, 1, "ledger", brief)},
		{name: "start", about: "until ready, plugins compiled before; then at rest", run: started(true)},
		{name: "start_cold", about: "until ready, plugins to be compiled", run: started(false)},
		{name: "fsync", about: "the disk: write and sync of 4 KiB", run: syncs},
	}...)
}
