import BlkBack
import BlockStores
import Glibc
import Measuring
import NetFront
import SystemPackage

/// What one thing costs by the clock beside the plain work on the same bytes.
private struct Comparison {
  let name: String
  let plainName: String
  /// Requests, frames or pages of one round.
  let count: Int
  let work: (Int) throws -> Int
  let plain: (Int) throws -> Int

  func turns(rounds: Int) throws -> Turns {
    try Turns(
      rounds: rounds,
      [
        { try nanosecondsEach(of: count) { try work(count) } },
        { try nanosecondsEach(of: count) { try plain(count) } },
      ])
  }
}

/// Prints a table: each row in so many rounds.
func printTimes(rounds: Int) throws {
  let fileByteCount = 64 << 20
  let path = "driver-benchmark-\(getpid()).img"
  let file = try FileDescriptor.open(
    FilePath(path), .readWrite, options: [.create, .truncate, .exclusiveCreate], permissions: .ownerReadWrite)
  // Safe: the call reads a string of ours.
  defer { _ = unsafe unlink(path) }
  try file.closeAfter {
    let block = [UInt8](repeating: 0x5A, count: 1 << 20)
    for _ in 0..<fileByteCount >> 20 { try file.writeAll(block) }
  }
  // Each is made when its turn comes: two stores cannot have one file.
  var rows: [() throws -> Comparison] = []
  for batch in [1, 32] {
    for writing in [false, true] {
      rows.append({
        try Comparison(
          name: "block \(writing ? "write" : "read") 4 KiB, memory, \(batch) at a time", plainName: "memcpy 4 KiB",
          count: 9600, work: block(writing: writing, batch: batch), plain: plainCopy(byteCount: 4096))
      })
    }
  }
  for (byteCount, batch) in [(4096, 1), (4096, 32), (45056, 32)] {
    for writing in [false, true] {
      let call = writing ? "pwrite" : "pread"
      rows.append({
        try Comparison(
          name: "block \(writing ? "write" : "read") \(byteCount / 1024) KiB, file, \(batch) at a time",
          plainName: "\(call) \(byteCount / 1024) KiB", count: 3200,
          work: block(
            writing: writing, byteCount: byteCount, batch: batch,
            store: FileStore(path: FilePath(path), options: FileStoreOptions(direct: .off))),
          plain: plainFile(path, writing: writing, byteCount: byteCount, fileByteCount: fileByteCount))
      })
    }
  }
  for batch in [1, 32] {
    rows.append({
      try Comparison(
        name: "net echo 1500 B, \(batch) at a time", plainName: "memcpy 1500 B, twice", count: 9600,
        work: netEcho(NetFeatures(splitEventChannels: false), frameByteCount: 1500, batch: batch),
        plain: plainCopy(byteCount: 1500, times: 2))
    })
  }
  for batch in [1, 11, 32] {
    rows.append({
      try Comparison(
        name: "grant copy, \(batch) pages a call", plainName: "memcpy 4 KiB", count: 352 * 20,
        work: grantCopy(batch: batch), plain: plainCopy(byteCount: 4096))
    })
    rows.append({
      try Comparison(
        name: "grant map, read, unmap, \(batch) pages a call", plainName: "memcpy 4 KiB", count: 352 * 4,
        work: grantMap(batch: batch), plain: plainCopy(byteCount: 4096))
    })
  }
  printHead(["what", "ns", "beside", "ns", "ratio"])
  for makeRow in rows {
    let row = try makeRow()
    let turns = try row.turns(rounds: rounds)
    let (work, plain) = (turns.least(0), turns.least(1))
    printRow([row.name, work.fixed(0), row.plainName, plain.fixed(0), (work / plain).fixed(1)])
  }
}
