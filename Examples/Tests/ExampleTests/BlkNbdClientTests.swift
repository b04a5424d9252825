import Foundation
import Testing

/// `blk-nbd` with the clients that people use.
struct BlkNbdClientTests {
  /// Differs from sector to sector, and is no multiple of what a ring's request carries.
  private static let content = Data((0..<(5 << 20) + 512).map { UInt8(truncatingIfNeeded: $0 &* 7 ^ $0 >> 9) })

  private func run(_ name: String, _ arguments: String...) throws -> String {
    let run = try Tool(installed: name).run(arguments)
    #expect(run.exitCode == 0, "\(name): \(run.output)\(run.error)")
    return run.output
  }

  // MARK: libnbd

  private static let hasLibnbd = ConditionTrait.enabled(
    if: Tool.isInstalled("nbdinfo") && Tool.isInstalled("nbdcopy"),
    "nbdinfo or nbdcopy is not installed: install libnbd-bin")

  @Test(hasLibnbd, arguments: [false, true]) func nbdinfoShowsTheExport(isReadOnly: Bool) throws {
    let server =
      try isReadOnly ? NbdServer(content: Self.content, arguments: "--read-only") : NbdServer(content: Self.content)
    let output = try run("nbdinfo", "--json", server.uri)
    let info = try #require(try JSONSerialization.jsonObject(with: Data(output.utf8)) as? [String: Any])
    #expect(info["protocol"] as? String == "newstyle-fixed")
    let export = try #require((info["exports"] as? [[String: Any]])?.first)
    for (key, value) in [
      "export-size": Self.content.count, "block_size_minimum": 512, "block_size_preferred": 4096,
      "block_size_maximum": 1 << 25,
    ] { #expect(export[key] as? Int == value, "\(key)") }
    for (key, value) in [
      "is_read_only": isReadOnly, "can_flush": true, "can_fua": true, "can_multi_conn": true, "can_trim": false,
      "can_zero": false,
    ] { #expect(export[key] as? Bool == value, "\(key)") }
    #expect(export["export-name"] as? String == "")
    try server.stop()
  }

  @Test(hasLibnbd) func nbdinfoListsTheOneExport() throws {
    let server = try NbdServer(content: Self.content)
    #expect(try run("nbdinfo", "--list", server.uri).contains("export=\"\":"))
    try server.stop()
  }

  @Test(hasLibnbd, arguments: [1, 4]) func nbdcopyCopiesBothWays(connections: Int) throws {
    let server = try NbdServer(byteCount: Self.content.count)
    let source = server.folder.appending(path: "source")
    let copy = server.folder.appending(path: "copy")
    try Self.content.write(to: source)
    _ = try run("nbdcopy", "--connections=\(connections)", "--flush", source.path, server.uri)
    #expect(try server.contents() == Self.content)
    _ = try run("nbdcopy", "--connections=\(connections)", server.uri, copy.path)
    #expect(try Data(contentsOf: copy) == Self.content)
    #expect(try server.stop().contains(", 0 failed; "))
  }

  @Test(
    hasLibnbd,
    arguments: [
      "--queues=2 --ring-order=1 --indirect=256", "--queues=4 --ring-order=4 --no-persistent", "--indirect=0",
    ])
  func everyWayToTheDiskCarriesTheSame(options: String) throws {
    let server = try NbdServer(
      byteCount: Self.content.count, argumentList: options.split(separator: " ").map(String.init))
    let source = server.folder.appending(path: "source")
    try Self.content.write(to: source)
    _ = try run("nbdcopy", "--connections=4", "--flush", source.path, server.uri)
    #expect(try server.contents() == Self.content)
    let copy = server.folder.appending(path: "copy")
    _ = try run("nbdcopy", "--connections=4", server.uri, copy.path)
    #expect(try Data(contentsOf: copy) == Self.content)
    #expect(try server.stop().contains(", 0 failed; "))
  }

  @Test(hasLibnbd) func clientKilledInMidWriteHarmsNobody() throws {
    let server = try NbdServer(byteCount: 256 << 20)
    let source = server.folder.appending(path: "source")
    try Data(repeating: 0xC3, count: 64 << 20).write(to: source)
    let old = try RawNbdClient(to: server)
    let client = Process()
    client.executableURL = Tool(installed: "nbdcopy").url
    client.arguments = ["--connections=4", source.path, server.uri]
    try client.run()
    // Its first byte is there: it is at work, and has most of it to do.
    while try old.read(0, 512).bytes.first == 0, client.isRunning {}
    try #require(try old.read(0, 512).bytes.first == 0xC3, "nbdcopy was at work")
    kill(client.processIdentifier, SIGKILL)
    client.waitUntilExit()
    #expect(try old.write(128 << 20, [UInt8](repeating: 1, count: 4096)) == 0)
    #expect(try old.flush() == 0)
    #expect(try RawNbdClient(to: server).read(128 << 20, 512).bytes == [UInt8](repeating: 1, count: 512))
    try server.stop()
  }

  // MARK: QEMU

  private static let hasQemu = ConditionTrait.enabled(
    if: Tool.isInstalled("qemu-img") && Tool.isInstalled("qemu-io"),
    "qemu-img or qemu-io is not installed: install qemu-utils")

  @Test(hasQemu) func qemuImgConvertsAndCompares() throws {
    let server = try NbdServer(byteCount: Self.content.count)
    let source = server.folder.appending(path: "source")
    try Self.content.write(to: source)
    _ = try run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source.path, server.uri)
    #expect(try server.contents() == Self.content)
    #expect(
      try run("qemu-img", "compare", "-f", "raw", "-F", "raw", source.path, server.uri) == "Images are identical.\n")
    try server.stop()
  }

  /// At whole sectors and beside them, within one and over many; what lies between keeps the pattern that it had.
  @Test(hasQemu) func qemuIoPatternsHoldAtAnyOffset() throws {
    let server = try NbdServer(byteCount: 4 << 20)
    let places = [
      (0, 512), (1000, 777), (4095, 2), (8192, 65_536), (100_001, 300_000), (1 << 20, 2 << 20), ((4 << 20) - 1, 1),
    ]
    var commands = ["write -P 1 0 4M"]
    var expected = Data(repeating: 1, count: 4 << 20)
    for (number, (offset, count)) in places.enumerated() {
      commands.append("write -P \(number + 10) \(offset) \(count)")
      expected.replaceSubrange(offset..<offset + count, with: Data(repeating: UInt8(number + 10), count: count))
    }
    commands.append("flush")
    for (number, (offset, count)) in places.enumerated() {
      commands.append("read -P \(number + 10) \(offset) \(count)")
    }
    commands += ["read -P 1 512 488", "read -P 1 1777 2318", "read -P 1 400001 1000"]
    let output = try Tool(installed: "qemu-io").run(["-f", "raw"] + commands.flatMap { ["-c", $0] } + [server.uri])
    #expect(output.exitCode == 0 && !output.output.contains("failed"), "\(output.output)\(output.error)")
    #expect(try server.contents() == expected)
    try server.stop()
  }

  @Test(hasQemu) func qemuIoFUAReachesTheMedium() throws {
    let server = try NbdServer(byteCount: 1 << 20)
    _ = try run(
      "qemu-io", "-f", "raw", "-t", "none", "-c", "write -f -P 1 0 4k", "-c", "write -f -P 2 4k 4k", server.uri)
    #expect(try server.stop().contains(" 2 writes of 8192 bytes, 2 of them durable, "))
  }

  // MARK: fio

  @Test(.enabled(if: Tool.isInstalled("fio"), "fio is not installed: install fio"))
  func fioVerifiesWhatSeveralJobsWrote() throws {
    let server = try NbdServer(byteCount: 16 << 20)
    let output = try run(
      "fio", "--name=job", "--ioengine=nbd", "--uri=\(server.uri)", "--rw=randwrite", "--bsrange=512-64k",
      "--bs_unaligned=0", "--blockalign=512", "--size=4M", "--offset_increment=4M", "--numjobs=4", "--iodepth=16",
      "--verify=crc32c", "--verify_state_save=0", "--verify_fatal=1", "--randseed=1", "--thread", "--fsync=32")
    #expect(output.contains("err= 0") && !output.contains("verify: bad"))
    #expect(try server.stop().contains(", 0 failed; "))
  }
}
