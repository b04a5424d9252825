/// Asks for the smallest divisor of a number.
struct Question: BitwiseCopyable {
  var id: UInt32
  var number: UInt32
}

/// Answers the question with the same id.
struct Answer: BitwiseCopyable {
  var id: UInt32
  /// The number itself when it is prime, and for 0 and 1.
  var divisor: UInt32

  /// The question comes from the other end: no number may trap here, or take long.
  init(to question: Question) {
    id = question.id
    divisor = question.number
    var candidate: UInt32 = 2
    while UInt64(candidate) * UInt64(candidate) <= UInt64(question.number) {
      if question.number % candidate == 0 {
        divisor = candidate
        return
      }
      candidate += 1
    }
  }
}
