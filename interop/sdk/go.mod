module github.com/audit-host/audit-host/interop/sdk

go 1.26.0

replace github.com/audit-host/audit-host => ../..

require (
	github.com/audit-host/audit-host v0.0.0-00010101000000-000000000000
	github.com/tetratelabs/wazero v1.12.0
)

require (
	github.com/google/uuid v1.6.0 // indirect
	github.com/ncruces/go-sqlite3 v0.32.0 // indirect
	github.com/ncruces/julianday v1.0.0 // indirect
	golang.org/x/sys v0.50.0 // indirect
)
