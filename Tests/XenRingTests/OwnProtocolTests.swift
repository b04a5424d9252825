import Testing
import XenPlatform
import XenRing

struct Ask: BitwiseCopyable { var id: UInt16, number: UInt16 }
struct Answer: BitwiseCopyable { var id: UInt16, padding: UInt16 = 0, square: UInt32 }

@Test func protocolOfOnesOwn() throws {
  let pages = PrivatePages(pageCount: 1)
  var front = FrontRing<Ask, Answer>(initialising: pages.region())
  var back = BackRing<Ask, Answer>(attaching: pages.region())
  front.put(Ask(id: 7, number: 12))
  let notifyBack = front.pushAndCheckNotify()
  #expect(notifyBack)
  _ = try back.available()
  while let ask = back.next() { back.put(Answer(id: ask.id, square: UInt32(ask.number) * UInt32(ask.number))) }
  let notifyFront = back.pushAndCheckNotify()
  #expect(notifyFront)
  _ = try front.available()
  let answer = front.next()
  #expect(answer?.id == 7 && answer?.square == 144)
}
