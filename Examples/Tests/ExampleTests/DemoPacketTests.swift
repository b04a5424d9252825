import Foundation
import Testing

/// The half of `demo` that sends packets.
final class DemoPacketTests {
  private let demo = Tool(name: "demo")
  private let folder: URL
  private let image: String

  init() throws {
    folder = FileManager.default.temporaryDirectory.appending(path: "swift-xen-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
    let disk = folder.appending(path: "disk.img")
    try Data(repeating: 1, count: 4096).write(to: disk)
    image = disk.path
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  /// A little-endian capture of frames of these lengths.
  private func capture(magic: UInt32 = 0xA1B2_C3D4, linkType: UInt32 = 1, _ byteCounts: [Int]) throws -> String {
    var words: [UInt32] = [magic, 2 | 4 << 16, 0, 0, 65_535, linkType]
    var data = Data()
    func flush() {
      for word in words { for shift in stride(from: 0, to: 32, by: 8) { data.append(UInt8(word >> shift & 0xFF)) } }
      words = []
    }
    for (number, byteCount) in byteCounts.enumerated() {
      words += [UInt32(number), 0, UInt32(byteCount), UInt32(byteCount)]
      flush()
      data.append(Data((0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &+ number) }))
    }
    flush()
    let file = folder.appending(path: "packets.pcap")
    try data.write(to: file)
    return file.path
  }

  @Test(arguments: [0xA1B2_C3D4, 0xA1B2_3C4D] as [UInt32])
  func packetsOfEitherResolutionComeBackAndAreRecorded(magic: UInt32) throws {
    let pcap = try capture(magic: magic, [60, 1514, 14, 1518, 700])
    let crossed = folder.appending(path: "crossed.pcap")
    let run = try demo.run("--image", image, "--pcap", pcap, "--crossed", crossed.path)
    #expect(run.exitCode == 0, "\(run.error)")
    #expect(run.output.contains("All 5 packets came back as they were sent"))
    // The file's header, and for each packet there and back a record's header and the packet.
    #expect(try Data(contentsOf: crossed).count == 24 + 2 * (5 * 16 + 60 + 1514 + 14 + 1518 + 700))
  }

  @Test func packetsLongerThanAgreedAreCountedAndLeftOut() throws {
    let pcap = try capture([60, 1519, 9000, 61, 13])
    let run = try demo.run("--image", image, "--pcap", pcap, "--crossed", folder.path + "/crossed.pcap")
    #expect(run.exitCode == 0, "\(run.error)")
    #expect(run.output.contains("All 2 packets came back"))
    #expect(
      run.output.contains(
        "2 packets were left out because they are longer than what was agreed (the longest has 9000 bytes)."))
    #expect(run.output.contains("1 packets were left out because they are shorter than an Ethernet header."))
  }

  @Test func wrongMagicIsSaid() throws {
    let pcap = try capture(magic: 0x1234_5678, [60])
    try demo.expectRefusal("\(pcap) is no pcap file: it begins with 0x12345678", "--image", image, "--pcap", pcap)
  }

  @Test func missingCaptureIsNamed() throws {
    let pcap = folder.path + "/none.pcap"
    try demo.expectRefusal(
      "the capture \(pcap) cannot be opened: No such file or directory", "--image", image, "--pcap", pcap)
  }

  @Test func captureOfAnotherLinkIsRefused() throws {
    let pcap = try capture(linkType: 113, [60])
    try demo.expectRefusal("the capture \(pcap) does not hold Ethernet frames", "--image", image, "--pcap", pcap)
  }
}
