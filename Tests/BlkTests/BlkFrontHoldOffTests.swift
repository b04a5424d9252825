@_spi(Measuring) import BlkFront
import TestSupport
import Testing
import XenLoopback

/// R8: when a disk's frontend is woken.
struct BlkFrontHoldOffTests {
  @Test(arguments: [false, true]) func diskIsWokenForTheFirstAnswerUnlessItHoldsOff(holdsOff: Bool) throws {
    var options = BlkFrontOptions()
    options.holdsOffEvents = holdsOff
    let disk = BlkFrontDevice(options)
    let backend = ManyRingsBackend()
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    for tag in 0..<10 as Range<UInt64> { try disk.read(sector: tag, byteCount: 512, tag: tag) }
    disk.push()
    disk.poll { _ in }
    let requests = try backend.requests()[0]
    let wakes = requests.map { backend.answer(BlkIfResponse(id: $0.id, operation: $0.operation, status: 0)) }
    #expect(wakes == (1...10).map { $0 == (holdsOff ? 6 : 1) })
    var tags: [UInt64] = []
    disk.poll { tags.append($0.tag) }
    #expect(tags == Array(0..<10))
    // The last one alone is waited for in either way.
    try disk.read(sector: 0, byteCount: 512, tag: 10)
    disk.push()
    disk.poll { _ in }
    let last = try backend.requests()[0][0]
    #expect(backend.answer(BlkIfResponse(id: last.id, operation: last.operation, status: 0)))
  }
}
